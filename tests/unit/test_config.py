"""The settings file: read as configparser reads it, written so that it is read the same, by one writer at a time."""

import configparser
import os
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from libdeadline import config
from libdeadline.errors import Trouble

PIECES = [
    "[a]", "[b]", "[a b]", "[DEFAULT]", "[x]y]", "  [c]", "[]", "key = value", "key: other", "Key=UPPER", "  more",
    "\tmore", "k2 = 1 = 2", "k3 =", "k4", "= 5", "", "   ", "# comment", "; comment", "  # inner", "k5 = a ; b",
    "k6 = ä\u00a0", "k7:=x", "  k8 = 9", "k9 = 100%%", "k10 = %(key)s!",
]  # fmt: skip


def theirs(text: str) -> configparser.ConfigParser | None:
    parser = configparser.ConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    return parser


@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_a_file_is_read_as_configparser_reads_it(lines: list[str]) -> None:
    text = "\n".join(lines)
    parser = theirs(text)
    if parser is None:
        with pytest.raises(Trouble) as caught:
            config.Ini(text, "f")
        assert caught.value.status == 78
        return
    ini = config.Ini(text, "f")
    for section in [*parser.sections(), "none"]:
        for key in ("key", "k2", "k3", "k5", "k6", "k7", "k8", "k9", "k10", "nothing"):
            try:
                wanted = parser.get(section, key, fallback=None)
            except configparser.InterpolationError:
                continue  # where configparser stops, we take the text as it stands
            assert ini.get(section, key) == wanted, (section, key)


VALUES = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\n"), max_size=12
)


@given(
    st.lists(st.sampled_from(PIECES), max_size=10),
    st.sampled_from(["a", "b", "new section", "profile-(default) farm-1 defaults", "profile-(default)  defaults"]),
    st.sampled_from(["key", "k2", "k3", "fresh"]),
    VALUES,
)
def test_what_is_written_is_read_back_and_the_rest_stays(lines, section, key, value) -> None:
    text = "\n".join(lines)
    before = theirs(text)
    assume(before is not None)
    ini = config.Ini(text, "f")
    try:
        edited = ini.edited(section, key, value)
    except Trouble as trouble:
        assert trouble.status == 65
        return
    assert config.Ini(edited, "f").get(section, key) == value.strip()
    after = theirs(edited)
    assert after is not None and after.get(section, key) == value.strip()
    for name in before.sections():
        for other in before.options(name):
            if (name, other) != (section, key):
                assert after.get(name, other, raw=True) == before.get(name, other, raw=True)


def test_a_percent_sign_that_stands_for_nothing_is_itself() -> None:
    ini = config.Ini("[s]\na = p%40x %(nope)s %% %(b)s %\nb = <%(c)s>\nc = deep", "f")
    assert ini.get("s", "a") == "p%40x %(nope)s % <deep> %"
    loop = config.Ini("[s]\na = %(b)s\nb = %(a)s", "f")
    assert "%" in (loop.get("s", "a") or "")


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / ".deadline" / "config"
    monkeypatch.delenv("DEADLINE_CONFIG_FILE_PATH", raising=False)
    return place


def test_settings_that_depend_on_others_come_and_go_with_them(path) -> None:
    config.write("defaults.queue_id", "queue-none")
    assert "[profile-(default)  defaults]" in path.read_text()
    config.write("defaults.aws_profile_name", "p1")
    config.write("defaults.farm_id", "farm-1")
    config.write("defaults.queue_id", "queue-1")
    config.write("defaults.farm_region", "eu-west-1")
    config.write("defaults.job_id", "job-1")
    config.write("settings.storage_profile_id", "sp-1")
    settings = config.read()
    assert settings.section("defaults.job_id") == "profile-p1 farm-1 queue-1 defaults"
    assert settings.section("settings.storage_profile_id") == "profile-p1 farm-1 settings"
    assert settings.section("settings.job_history_dir") == "profile-p1 settings"
    assert settings.get("settings.job_history_dir") == "~/.deadline/job_history/p1"
    other = settings.with_values({"defaults.aws_profile_name": "p2"})
    assert other.get("defaults.farm_id") == other.get("defaults.job_id") == ""
    assert settings.with_values({"defaults.aws_profile_name": "(default)"}).get("defaults.queue_id") == "queue-none"
    assert settings.get("defaults.job_id") == "job-1"


def test_overrides_hold_for_one_command_and_never_reach_the_file(path) -> None:
    config.write("defaults.farm_id", "farm-1")
    before = path.read_bytes()
    settings = config.read()
    # The region was asked for before the farm was known, and still counts for it.
    told = settings.with_values({"defaults.farm_region": "eu-west-1", "defaults.queue_id": None, "defaults.job_id": ""})
    found = told.with_values({"defaults.farm_id": "farm-2"})
    assert (found.get("defaults.farm_id"), found.get("defaults.farm_region")) == ("farm-2", "eu-west-1")
    assert settings.get("defaults.farm_region") == "" and settings.get("defaults.farm_id") == "farm-1"
    config.write("settings.locale", "de_DE")
    assert path.read_bytes() == before + b"\n[settings]\nlocale = de_DE\n"
    with pytest.raises(Trouble):
        settings.with_values({"no.such": "1"})


def test_a_snapshot_does_not_change(path) -> None:
    settings = config.read()
    config.write("settings.log_level", "debug")
    assert settings.get("settings.log_level") == "WARNING"
    assert config.read().get("settings.log_level") == "DEBUG"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("key = value\n", 1),
        ("[a]\nkey = 1\n\nno delimiter\n", 4),
        ("[a]\nx=1\n[a]\n", 3),
        ("[a]\nx=1\nX=2\n", 3),
        ("[a]\n= 1\n", 2),
        ("[a]\nx=\xff", 2),
    ],
)
def test_a_broken_file_is_named_with_its_line(path, text, line) -> None:
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    for action in (config.read, lambda: config.write("settings.locale", "x")):
        with pytest.raises(Trouble) as caught:
            action()
        assert caught.value.status == 78
        assert f"'{path}', line {line}:" in caught.value.message
    assert path.read_bytes() == text.encode("latin-1")


def test_a_mark_of_byte_order_and_foreign_line_ends_do_no_harm(path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xef\xbb\xbf[settings]\r\nlocale = de\r\nlog_level = INFO\r\n")
    assert config.read().get("settings.locale") == "de"
    config.write("settings.locale", "fr")
    assert path.read_bytes() == b"[settings]\nlocale = fr\nlog_level = INFO\n"


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("settings.log_level", "debug", "DEBUG"),
        ("settings.conflict_resolution", "Create_Copy", "CREATE_COPY"),
        ("defaults.job_attachments_file_system", "virtual", "VIRTUAL"),
        ("settings.auto_accept", "Yes", "Yes"),
        ("settings.auto_accept", "0", "0"),
        ("settings.max_retries_per_task", "0", "0"),
        ("settings.auto_accept", "", ""),
        ("settings.log_level", "", ""),
        ("settings.s3_max_pool_connections", "", ""),
        ("settings.auto_accept", "perhaps", None),
        ("settings.log_level", "LOUD", None),
        ("settings.s3_max_pool_connections", "many", None),
        ("settings.s3_max_pool_connections", "-1", None),
        ("settings.s3_max_pool_connections", "\u0663", None),
        ("settings.locale", "a\nb", None),
        ("settings.locale", "a\n# gone", None),
    ],
)
def test_values_are_checked(path, name, value, stored) -> None:
    if stored is None:
        with pytest.raises(Trouble) as caught:
            config.write(name, value)
        assert caught.value.status == 65
        assert not path.exists()
    else:
        config.write(name, value)
        assert config.read().get(name) == stored


def test_values_are_given_as_what_they_are(path) -> None:
    path.parent.mkdir()
    path.write_text(
        "[settings]\nauto_accept = ON\nforce_s3_check =\nmax_retries_per_task =\nlog_level = loud\n"
        "allow_bundle_hooks = maybe\ns3_max_pool_connections = few\nconflict_resolution = skip\nca_bundle = ~/ca.pem\n"
    )
    settings = config.read()
    assert settings.boolean("settings.auto_accept") is True
    assert settings.boolean("settings.force_s3_check") is False
    assert settings.boolean("settings.submitter_update_notification") is True
    assert settings.integer("settings.max_retries_per_task") == 5
    assert settings.choice("settings.conflict_resolution") == "SKIP"
    assert settings.file("settings.ca_bundle") == os.path.expanduser("~/ca.pem")
    for ask in (
        lambda: settings.choice("settings.log_level"),
        lambda: settings.boolean("settings.allow_bundle_hooks"),
        lambda: settings.integer("settings.s3_max_pool_connections"),
    ):
        with pytest.raises(Trouble) as caught:
            ask()
        assert caught.value.status == 78


def test_ambient_profiles(path) -> None:
    for name in ("", "default", "(default)"):
        config.write("defaults.aws_profile_name", name)
        assert config.read().profile() is None
    assert config.read().with_values({"defaults.aws_profile_name": "x"}).profile() == "x"


def test_writers_wait_for_each_other(path) -> None:
    """Eight processes write settings at the same time: none is lost."""
    program = (
        "import sys; from libdeadline import config\n"
        "for n in range(5):\n"
        "    config.write('settings.locale', f'{sys.argv[1]}-{n}')\n"
        "name = ['settings.locale','settings.log_level','settings.auto_accept','telemetry.opt_out',"
        "'settings.https_proxy','settings.ca_bundle','settings.max_retries_per_task','settings.deadline_regions']"
        "[int(sys.argv[1])]\n"
        "config.write(name, {'settings.log_level': 'INFO', 'settings.max_retries_per_task': '1'}.get(name, 'true'))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for number in range(8)]
    assert [process.wait() for process in running] == [0] * 8
    settings = config.read()
    for name in ("auto_accept", "https_proxy", "ca_bundle", "deadline_regions"):
        assert settings.get(f"settings.{name}") == "true"
    assert settings.get("settings.log_level") == "INFO"
    assert settings.get("settings.max_retries_per_task") == "1"
    assert settings.get("telemetry.opt_out") == "true"
    assert sorted(each.name for each in path.parent.iterdir()) == ["config", "config.lock"]


def test_a_link_stays_a_link_and_the_file_is_private(path, tmp_path) -> None:
    target = tmp_path / "kept" / "elsewhere"
    target.parent.mkdir()
    target.write_text("[settings]\nlocale = a\n")
    target.chmod(0o644)
    path.parent.mkdir()
    path.symlink_to(target)
    config.write("settings.locale", "b")
    assert path.is_symlink() and target.read_text() == "[settings]\nlocale = b\n"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_the_file_as_it_was(path, monkeypatch) -> None:
    config.write("settings.locale", "a")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config.os, "fsync", full)
    with pytest.raises(Trouble) as caught:
        config.write("settings.locale", "b")
    assert caught.value.status == 74
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.tmp"))


def test_a_folder_that_cannot_be_made(path, monkeypatch) -> None:
    monkeypatch.setenv("DEADLINE_CONFIG_FILE_PATH", "/dev/null/config")
    with pytest.raises(Trouble) as caught:
        config.write("settings.locale", "b")
    assert caught.value.status in (73, 74)
    with pytest.raises(Trouble):
        config.read()


def test_every_setting_is_described_and_its_default_is_one_of_its_values() -> None:
    for name, setting in config.SETTINGS.items():
        assert setting.description.endswith(".")
        assert config.checked(name, setting.default) == setting.default
        if setting.depends_on:
            assert setting.depends_on in config.SETTINGS
