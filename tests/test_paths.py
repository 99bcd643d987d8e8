"""Arguments and environment to folders and URLs."""

from pathlib import Path

import pytest

from dpose.paths import body_models, data_root, data_roots


def test_data_come_from_the_argument_else_the_environment_else_the_cache(monkeypatch):
    monkeypatch.delenv("DPOSE_DATA", raising=False)
    assert data_root().parts[-2:] == ("dpose", "open")
    monkeypatch.setenv("DPOSE_DATA", "~/set")
    assert data_root() == Path.home() / "set" and data_root("/other") == Path("/other")
    assert data_roots(["/a", Path("b")]) == (Path("/a"), Path("b"))
    with pytest.raises(ValueError, match="empty list"):
        data_roots([])


def test_an_empty_string_is_a_mistake_and_an_empty_variable_is_unset(monkeypatch):
    for read in (data_root, data_roots, body_models, lambda path: data_roots(["/a", path])):
        with pytest.raises(ValueError, match="empty string"):
            read("")
    monkeypatch.setenv("DPOSE_DATA", "")
    monkeypatch.setenv("DPOSE_BODY_MODELS", "")
    assert data_root().parts[-2:] == ("dpose", "open") and body_models() is None


def test_a_url_stays_one_and_is_no_folder(monkeypatch):
    assert data_roots(["https://host/set/", "/a"]) == ("https://host/set", Path("/a"))
    monkeypatch.setenv("DPOSE_DATA", "s3://bucket/set")
    assert data_roots() == ("s3://bucket/set",)
    with pytest.raises(ValueError, match="s3://bucket/set"):
        data_root()
