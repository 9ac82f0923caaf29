"""Sits before a Qt program's window as a person would: looks until something is there, presses it, looks on.

The test lays it in a folder on PYTHONPATH as sitecustomize.py, so that the program itself stays as it is. WINDOW_STEPS
is a JSON list of `[what, text]`: `see` waits for a text on the screen, `press` for a button that can be pressed,
`choose` for a row of a list or tree, `close` closes the window with that title. WINDOW_REPORT is the folder for a
picture of the whole screen at each step and for seen.json, the texts that were there.
"""

import json
import os
import sys
import threading
import time

EVERY_MS = 50
STILL_LOOKS = 12  # nobody clicks on what still changes


def texts(widget):
    """What a widget and those inside it show; of a list to choose from, all of it."""
    from PySide6.QtWidgets import QComboBox

    for index in rows(widget):
        yield widget, str(index.data())
    for index in range(widget.count() if isinstance(widget, QComboBox) else 0):
        yield widget, widget.itemText(index)
    for name in ("text", "toPlainText", "title"):
        get = getattr(widget, name, None)
        if callable(get):
            try:
                shown = get()
            except TypeError:  # wants an argument: it is another widget's method of that name
                continue
            if isinstance(shown, str) and shown:
                yield widget, shown
    for child in widget.children():
        if child.isWidgetType() and child.isVisible() and not child.isWindow():
            yield from texts(child)


def rows(widget):
    """The top rows of a list or tree."""
    from PySide6.QtWidgets import QAbstractItemView

    if isinstance(widget, QAbstractItemView) and widget.model():
        for row in range(widget.model().rowCount()):
            yield widget.model().index(row, 0)


class Person:
    def __init__(self, app, steps, folder):
        from PySide6.QtCore import QTimer

        self.app, self.steps, self.folder, self.seen = app, steps, folder, []
        self.last, self.still = None, 0
        self.timer = QTimer()
        self.timer.timeout.connect(self.look)
        self.timer.start(EVERY_MS)

    def look(self):
        from PySide6.QtCore import QTimer

        windows = [each for each in self.app.topLevelWidgets() if each.isVisible()]
        shown = [pair for window in windows for pair in texts(window)]
        self.now([window.windowTitle() for window in windows], shown)
        if not self.steps:
            self.timer.stop()
            return
        state = [(text, widget.isEnabled()) for widget, text in shown]
        self.still = self.still + 1 if state == self.last else 0
        self.last = state
        if self.still < STILL_LOOKS:
            return
        what, wanted = self.steps[0]
        found = list(self.deeds(what, wanted, windows, shown))
        if found:
            self.picture(f"{len(self.seen)}-{what}")
            self.seen.append({"step": self.steps.pop(0), "texts": [text for _, text in shown]})
            with open(os.path.join(self.folder, "seen.json"), "w") as file:
                json.dump(self.seen, file)
            # Not from within this timer: what opens a window of its own would keep it from firing again.
            QTimer.singleShot(0, self.app, found[0])

    def deeds(self, what, wanted, windows, shown):
        """What can be done at this moment to take a step."""
        from PySide6.QtWidgets import QAbstractButton

        modal = self.app.activeModalWidget()
        if what == "close":
            for window in windows:
                if wanted in window.windowTitle():
                    yield window.close
            return
        for widget, text in shown:
            if what == "see" and wanted in text:
                yield lambda: None
            elif modal is not None and widget.window() is not modal:
                continue  # what a modal window covers can be seen, but not clicked
            elif what == "press" and isinstance(widget, QAbstractButton):
                if text.replace("&", "") == wanted and widget.isEnabled():
                    yield lambda widget=widget: self.click(widget)
            elif what == "choose" and wanted in text:
                for index in rows(widget):
                    if index.data() == text:
                        yield lambda view=widget, index=index: self.click(view.viewport(), view.visualRect(index))

    def click(self, widget, place=None):
        from PySide6.QtCore import QPoint, Qt
        from PySide6.QtTest import QTest

        where = place.center() if place else QPoint()  # the widget's own centre
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, where)

    def picture(self, name):
        self.app.primaryScreen().grabWindow(0).save(os.path.join(self.folder, f"{name}.png"))

    def now(self, titles, shown):
        """What is there at this moment, for whoever wonders why a step is not reached."""
        state = {"waits": self.steps[:1], "windows": titles, "texts": [text for _, text in shown]}
        path = os.path.join(self.folder, "now.json")
        with open(f"{path}.new", "w") as file:
            json.dump(state, file)
        os.replace(f"{path}.new", path)


def wait_for_an_application():
    while getattr(sys.modules.get("PySide6.QtWidgets"), "QApplication", None) is None:
        time.sleep(EVERY_MS / 1000)
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication

    while (app := QApplication.instance()) is None:
        time.sleep(EVERY_MS / 1000)

    def start():
        app.person = Person(app, json.loads(os.environ["WINDOW_STEPS"]), os.environ["WINDOW_REPORT"])

    QTimer.singleShot(0, app, start)


if "WINDOW_STEPS" in os.environ:
    threading.Thread(target=wait_for_an_application, daemon=True).start()
