"""Tables of captions: what is read, and what is refused with which words."""

import json
import os
from pathlib import Path

import pytest

from mg.data.captions import CaptionTable, read_captions
from mg.data.manifest import build_manifest
from mg.data.video_table import MAX_CHARACTERS

CSV = 'video,caption\na.mp4,"one, two"\nsub/b.mp4,  three \n'


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def pairs(table: CaptionTable, root):
    return [(v.path.relative_to(root.resolve()).as_posix(), v.caption) for v in table.videos]


EXPECTED = [("a.mp4", "one, two"), ("sub/b.mp4", "three")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", CSV),
        ("t.csv", "\ufeff" + CSV),
        ("t.CSV", CSV.replace("\n", "\r\n")),
        ("t.csv", CSV.replace("video,caption", "Path, Text")),
        ("t.csv", 'id,description,file_name\n1,"one, two",a.mp4\n2,three,sub/b.mp4\n'),
        ("t.jsonl", '{"video": "a.mp4", "caption": "one, two"}\n\n'
         '{"caption": "three", "video": "sub/b.mp4", "fps": 16}\n'),
        ("t.jsonl", '{"file": "a.mp4", "prompt": "one, two"}\r\n'
         '{"file": "sub/b.mp4", "prompt": "three"}'),
        ("metadata.json", '{"a.mp4": "one, two", "sub/b.mp4": "three"}'),
        ("t.json", '[{"path": "a.mp4", "text": "one, two"}, '
         '{"path": "sub/b.mp4", "text": "three"}]'),
    ],
)  # fmt: skip
def test_usual_tables(tmp_path, name, text):
    table = read_captions(write(tmp_path, name, text))
    assert pairs(table, tmp_path) == EXPECTED
    assert [video.name for video in table.videos] == ["a.mp4", "sub/b.mp4"]
    assert table.without_caption == ()


def test_first_known_column_wins(tmp_path):
    path = write(tmp_path, "t.csv", "text,path,caption,video\nno,no.mp4,yes,yes.mp4\n")
    assert pairs(read_captions(path), tmp_path) == [("yes.mp4", "yes")]


def test_names_are_relative_to_the_video_folder(tmp_path):
    path = write(tmp_path, "t.csv", CSV)
    folder = tmp_path / "videos"
    folder.mkdir()
    assert pairs(read_captions(path, video_folder=folder), folder) == EXPECTED


def test_names_without_suffix_find_their_file(tmp_path):
    (tmp_path / "sample.001.mp4").touch()
    (tmp_path / "still.png").touch()
    entries = {"sample.001": "a", "still": "b", "gone": "c"}
    table = read_captions(write(tmp_path, "metadata.json", json.dumps(entries)))
    found = [("sample.001.mp4", "a"), ("still.png", "b"), ("gone", "c")]
    assert pairs(table, tmp_path) == found


def test_empty_captions_are_listed(tmp_path):
    text = 'video,caption\na.mp4,one\nb.mp4,\nc.mp4,"  "\nd.mp4\n'
    table = read_captions(write(tmp_path, "t.csv", text))
    assert pairs(table, tmp_path) == [("a.mp4", "one")]
    assert table.without_caption == ("b.mp4", "c.mp4", "d.mp4")
    rows = [{"video": "a.mp4", "caption": "one"}, {"video": "b.mp4"}]
    rows.append({"video": "c.mp4", "caption": None})
    path = write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_captions(path).without_caption == ("b.mp4", "c.mp4")


def test_a_video_may_have_several_captions(tmp_path):
    path = write(tmp_path, "t.csv", "video,caption\na.mp4,one\na.mp4,two\n")
    assert pairs(read_captions(path), tmp_path) == [("a.mp4", "one"), ("a.mp4", "two")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "video,label\na.mp4,x\n", r"the caption, named 'caption' .*\['video', 'label'\]"),
        ("t.csv", "movie,caption\na.mp4,x\n", r"path of the video, named 'video' .*\['movie', 'ca"),
        ("t.csv", "video,label\n", r"columns found: \['video', 'label'\]"),
        ("t.csv", "", r"columns found: \[\]"),
        ("t.csv", "video,caption\n", r"no row with a caption \(0 rows without\)"),
        ("t.csv", "video,caption\na.mp4,\n", r"no row with a caption \(1 rows without\)"),
        ("t.csv", "video,caption\na.mp4,one, two\n", "line 2: more cells .* in quotes"),
        ("t.csv", "video,caption\n,one\n", "line 2: the path of the video is empty"),
        ("t.csv", "video,caption\n../a.mp4,x\n", r"line 2: path '\.\./a\.mp4' leads outside"),
        ("t.csv", "video,caption\n/etc/passwd,x\n", "line 2: path '/etc/passwd' leads outside"),
        ("t.jsonl", '{"video": "a", "caption": "b"}\n{"video": ', "line 2 is not JSON"),
        ("t.jsonl", '["a", "b"]', "line 1: expected an object"),
        ("t.jsonl", '{"video": "a.mp4", "caption": 5}', r"line 1: .*two texts, got \['a.mp4', 5\]"),
        ("t.json", '"text"', "expected a mapping of videos to captions"),
        ("t.json", '{"a.mp4": {"long": "x"}}', "entry 1: expected two texts"),
        ("t.json", "[" * 100000, "nested too deeply"),
        ("t.txt", "a.mp4 one", r"tables are read from \.csv, \.jsonl, \.json; not from t\.txt"),
    ],
)  # fmt: skip
def test_other_tables_are_refused(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_captions(write(tmp_path, name, text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"video,caption\na.mp4,\xff\xfe\n")
    with pytest.raises(ValueError, match="UTF-8"):
        read_captions(path)


def test_a_link_in_the_folder_is_followed(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (tmp_path / "elsewhere.mp4").touch()
    (folder / "link.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    path = write(tmp_path, "t.csv", "video,caption\nlink.mp4,x\n")
    (video,) = read_captions(path, video_folder=folder).videos
    assert (video.name, video.path) == ("link.mp4", folder.resolve() / "link.mp4")


def test_missing_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such table of captions"):
        read_captions(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="no such video folder"):
        read_captions(write(tmp_path, "t.csv", CSV), video_folder=tmp_path / "none")


MEDIA = Path(__file__).parents[1] / "fixtures" / "media"
LONG = "x" * (MAX_CHARACTERS + 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (MEDIA / "quote.csv", None, r"quote\.csv, line 2: a quote .* never closed"),
        (MEDIA / "comma.csv", None, r"comma\.csv, line 2: more cells than the header has"),
        ("t.csv", 'video,caption\na.mp4,"one\nb.mp4,two\nc.mp4,"three"\n',
         "line 2: text follows a closing quote .* in line 4"),
        ("t.csv", 'video,caption\na.mp4,"one\n two"\nb.mp4,"three\n', "line 4: a quote .* never"),
        ("t.csv", f"video,caption\na.mp4,one\nb.mp4,{LONG}\n",
         "line 3: a cell of more than 131072 characters, the most that is read; is a quote"),
        ("t.csv", f'video,caption\na.mp4,"{LONG}\n', "line 2: a cell of more than 131072"),
        ("t.jsonl", f'{{"video": "a", "caption": "{LONG}"}}', "line 1: a cell of 131073"),
        ("t.json", f'{{"a.mp4": "{LONG}"}}', "entry 1: a cell of 131073 .* 131072 are"),
        ("t.json", '{"a.mp4": "one", "a.mp4": "two"}', "twice"),
    ],
)  # fmt: skip
def test_both_readers_of_tables_refuse_the_same(tmp_path, name, text, message):
    path = name if text is None else write(tmp_path, name, text)
    with pytest.raises(ValueError, match=message):
        read_captions(path)
    with pytest.raises(ValueError, match=message):
        build_manifest(csv_path=path)


def test_texts_of_several_lines_and_quotes_are_read(tmp_path):
    text = 'video,caption\na.mp4,"one\ntwo, ""three"""\n\nb.mp4,it\'s 6" wide\n'
    table = read_captions(write(tmp_path, "t.csv", text))
    assert pairs(table, tmp_path) == [("a.mp4", 'one\ntwo, "three"'), ("b.mp4", "it's 6\" wide")]
    table = read_captions(write(tmp_path, "long.csv", f"video,caption\na.mp4,{LONG[1:]}\n"))
    assert len(table.videos[0].caption) == MAX_CHARACTERS


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_pipes_and_devices_are_no_tables(tmp_path, name, target):
    path = tmp_path / name
    os.mkfifo(path) if target == "pipe" else path.symlink_to(target)
    words = r"is a (named pipe|device); a regular file is expected"
    with pytest.raises(ValueError, match=words):
        read_captions(path)
    with pytest.raises(ValueError, match=words):
        build_manifest(csv_path=path)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_tables_without_end_are_not_read_into_memory(tmp_path, name):
    path = write(tmp_path, name, "")
    os.truncate(path, 1 << 40)  # takes no space on the disk
    with pytest.raises(ValueError, match=r"characters or more in it|bytes, the most that is read"):
        read_captions(path)
