"""What tells a file or a folder from another of the same name."""

import os

from microseg.data.files import identity


def test_a_file_is_known_by_its_size_and_the_time_of_its_change(tmp_path):
    (tmp_path / "a").write_bytes(b"cells")
    first = identity(tmp_path / "a")
    assert identity(tmp_path / "a") == first
    os.utime(tmp_path / "a", ns=(10, 10))
    assert identity(tmp_path / "a") != first


def test_a_folder_is_known_by_names_sizes_and_times_of_its_files(tmp_path):
    chunk = tmp_path / "image" / "0" / "c"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"1")
    os.utime(chunk, ns=(10, 10))
    first = identity(tmp_path / "image")
    chunk.write_bytes(b"2")
    assert identity(tmp_path / "image") != first
    os.utime(chunk, ns=(10, 10))
    assert identity(tmp_path / "image") == first  # a million chunks are not read
    chunk.rename(chunk.with_name("d"))
    assert identity(tmp_path / "image") != first
