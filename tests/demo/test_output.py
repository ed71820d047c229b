"""The output folder: all or nothing, and nothing lost."""

import pytest

from kdkeras.demo.output import output_folder


def fill(folder, text):
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.png").write_text(text)
    (folder / "record.json").write_text(text)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_files_appear_together(tmp_path):
    with output_folder(tmp_path / "out", overwrite=False) as staging:
        fill(staging, "new")
        assert not (tmp_path / "out" / "record.json").exists()
    assert listing(tmp_path / "out") == ["pictures", "pictures/a.png", "record.json"]


def test_failure_leaves_no_trace(tmp_path):
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "out", overwrite=False) as staging:
        fill(staging, "half")
        raise KeyboardInterrupt
    assert listing(tmp_path) == []


def test_failure_keeps_the_earlier_run(tmp_path):
    with output_folder(tmp_path, overwrite=False) as staging:
        fill(staging, "old")
    with pytest.raises(RuntimeError), output_folder(tmp_path, overwrite=True) as staging:
        fill(staging, "half")
        raise RuntimeError
    assert (tmp_path / "record.json").read_text() == "old"
    assert listing(tmp_path) == ["pictures", "pictures/a.png", "record.json"]


def test_overwriting_leaves_other_files_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(FileExistsError, match=r"is not empty. Choose another folder"),
        output_folder(tmp_path, overwrite=False),
    ):
        pass
    with output_folder(tmp_path, overwrite=True) as staging:
        fill(staging, "new")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "record.json").read_text() == "new"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(NotADirectoryError, match="is a file, not a folder"),
        output_folder(tmp_path / "out", overwrite=True),
    ):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_an_empty_folder_of_the_users_stays(tmp_path):
    with pytest.raises(RuntimeError), output_folder(tmp_path, overwrite=False):
        raise RuntimeError
    assert tmp_path.is_dir()


def test_what_a_killed_run_left_is_no_result(tmp_path):
    (tmp_path / ".unfinished-abc").mkdir()
    with output_folder(tmp_path, overwrite=False) as staging:
        fill(staging, "new")
    assert (tmp_path / "record.json").read_text() == "new"
