"""Sits before a Qt program's window as a person would: looks until something is there, presses it, looks on.

The test lays it in a folder on PYTHONPATH as sitecustomize.py, so that the program itself stays as it is. WINDOW_STEPS
is a JSON list of `[what, text]`: `see` waits for a text on the screen, `press` for a button that can be pressed,
`close` closes the window with that title. WINDOW_REPORT is the folder for a picture of the whole screen at each step
and for seen.json, the texts that were there.
"""

import json
import os
import sys
import threading
import time

EVERY_MS = 50


def texts(widget):
    """What a widget and those inside it show; of a list to choose from, all of it."""
    from PySide6.QtWidgets import QComboBox

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


class Person:
    def __init__(self, app, steps, folder):
        from PySide6.QtCore import QTimer

        self.app, self.steps, self.folder, self.seen = app, steps, folder, []
        self.timer = QTimer()
        self.timer.timeout.connect(self.look)
        self.timer.start(EVERY_MS)

    def look(self):
        from PySide6.QtCore import QTimer
        from PySide6.QtWidgets import QAbstractButton

        # What a modal window covers can be seen, but not pressed.
        modal = self.app.activeModalWidget()
        windows = [each for each in self.app.topLevelWidgets() if each.isVisible()]
        shown = [pair for window in windows for pair in texts(window)]
        self.now([window.windowTitle() for window in windows], shown)
        if not self.steps:
            self.timer.stop()
            return
        what, wanted = self.steps[0]
        if what == "close":
            found = [window for window in windows if wanted in window.windowTitle()]
            act = found[0].close if found else None
        else:
            found = [
                widget
                for widget, text in shown
                if (wanted in text if what == "see" else text.replace("&", "") == wanted)
                and (what == "see" or isinstance(widget, QAbstractButton) and widget.isEnabled())
                and (what == "see" or modal is None or widget.window() is modal)
            ]
            act = (lambda: None) if what == "see" else (lambda: self.press(found[0]))
        if found:
            self.picture(f"{len(self.seen)}-{what}")
            self.seen.append({"step": self.steps.pop(0), "texts": [text for _, text in shown]})
            with open(os.path.join(self.folder, "seen.json"), "w") as file:
                json.dump(self.seen, file)
            # Not from within this timer: what opens a window of its own would keep it from firing again.
            QTimer.singleShot(0, self.app, act)

    def press(self, button):
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def picture(self, name):
        self.app.primaryScreen().grabWindow(0).save(os.path.join(self.folder, f"{name}.png"))

    def now(self, titles, shown):
        """What is there at this moment, for whoever wonders why a step is not reached."""
        state = {"waits": self.steps[:1], "windows": titles, "texts": [text for _, text in shown]}
        with open(os.path.join(self.folder, "now.json"), "w") as file:
            json.dump(state, file)


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
