"""Folders are put in their place whole, or what was there stays."""

from __future__ import annotations

import pytest

from limbeck.files import atomic_folder


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "deep" / "new") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("a")
        (temporary / "private").touch(mode=0o600)
        assert not (tmp_path / "deep" / "new").exists()
    assert names(tmp_path) == ["deep", "deep/new", "deep/new/inner", "deep/new/inner/file", "deep/new/private"]
    (tmp_path / "usual").touch()
    new = tmp_path / "deep" / "new" / "private"
    assert new.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_takes_the_place_of_another(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "before").touch()
    with atomic_folder(tmp_path / "old") as temporary:
        (temporary / "after").touch()
        assert (tmp_path / "old" / "before").exists()
    assert names(tmp_path) == ["old", "old/after"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "before").touch()
    with pytest.raises(RuntimeError, match="stop"), atomic_folder(tmp_path / "old") as temporary:  # noqa: PT012
        (temporary / "half").touch()
        raise RuntimeError("stop")
    assert names(tmp_path) == ["old", "old/before"]


def test_what_was_there_is_put_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "before").touch()
    rename = Path.rename

    def refuse(self, target):
        if self.name.endswith("-new"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no"), atomic_folder(tmp_path / "old"):
        pass
    assert names(tmp_path) == ["old", "old/before"]
