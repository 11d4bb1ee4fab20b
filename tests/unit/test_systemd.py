"""The unit for systemd's user manager."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.services import systemd
from tinytags_tasks.settings import Settings

OF_HTTPS_AND_GPU = {
    "SSL_CERT_FILE": "/etc/authority.pem",
    "SSL_CERT_DIR": "/etc/authorities",
    "REQUESTS_CA_BUNDLE": "/etc/authority.pem",
    "CURL_CA_BUNDLE": "/etc/authority.pem",
    "LD_LIBRARY_PATH": "/opt/cuda/lib64",
    "CUDA_VISIBLE_DEVICES": "1",
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TINYTAGS_AUDIT_CRON", "0 3 * * *")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'a"b$c\\d')
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", "/etc/tinytags.keytab")
    for name, value in OF_HTTPS_AND_GPU.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UNRELATED", "1")
    return Settings(home=tmp_path / "a home of 100%")


def read(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


def test_the_unit_runs_the_keeper_of_this_home_for_ever(settings: Settings, tmp_path: Path) -> None:
    path = systemd.write_unit(settings)
    assert path.parent == tmp_path / "config" / "systemd" / "user"
    service = read(path)["Service"]
    assert service["ExecStart"] == f'"{sys.executable}" -m tinytags_tasks.cli keep'
    assert service["WorkingDirectory"] == str(PROJECT_ROOT)
    assert service["EnvironmentFile"] == f"{settings.home}/services/keeper/environment".replace("%", "%%")
    assert (service["Restart"], service["KillMode"], service["OOMPolicy"]) == ("always", "process", "continue")


def test_its_environment_configures_tinytags_and_is_private(settings: Settings) -> None:
    systemd.write_unit(settings)
    path = settings.home / "services" / "keeper" / "environment"
    assert path.stat().st_mode & 0o077 == 0
    lines = path.read_text().splitlines()
    assert f'TINYTAGS_HOME="{settings.home}"' in lines
    assert 'TINYTAGS_AUDIT_CRON="0 3 * * *"' in lines
    assert 'AWS_SECRET_ACCESS_KEY="a\\"b\\$c\\\\d"' in lines
    assert 'KRB5_CLIENT_KTNAME="/etc/tinytags.keytab"' in lines
    assert {f'{name}="{value}"' for name, value in OF_HTTPS_AND_GPU.items()} <= set(lines)
    assert any(line.startswith("PATH=") for line in lines)
    assert not any(line.startswith("UNRELATED") for line in lines)


def test_each_home_has_its_own_unit(settings: Settings) -> None:
    other = settings.model_copy(update={"home": settings.home.parent / "other"})
    assert systemd.unit_name(settings) != systemd.unit_name(other)
    assert systemd.unit_name(settings) == systemd.unit_name(settings)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_unit(settings: Settings) -> None:
    path = systemd.write_unit(settings)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(settings.home)},
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if path.name in line]
    assert not complaints
