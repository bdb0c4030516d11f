"""What packed files hold: compressed ones and archives, unpacked whole or refused with what is wrong."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import cramjam
import pyarrow as pa
import pytest
import pyzipper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.deliveries import Reader, tarred, write, zipped
from platform_tests.ingestion.files.formats.writing import as_parquet, as_workbook

from data_platform.errors import PlatformError
from data_platform.ingestion.files.loaded import by_name
from data_platform.ingestion.files.storage import archives, unpacking
from data_platform.ingestion.files.storage.encryption import Keys
from data_platform.ingestion.files.storage.unpacking import Unpacking, contents

ROWS = b"id\n1\n2\n"
NOISE = os.urandom(300_000)


def by_arrow(codec: str) -> Callable[[bytes], bytes]:
    def packed(content: bytes) -> bytes:
        out = io.BytesIO()
        with pa.CompressedOutputStream(pa.PythonFile(out, "w"), codec) as stream:
            stream.write(content)
            stream.flush()
            closed = out.getvalue
            out.close = lambda: None  # type: ignore[method-assign]  # its bytes are still wanted
        return closed()

    return packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zstd": by_arrow("zstd"),
    "lz4": by_arrow("lz4"),
    "snappy": lambda content: bytes(cramjam.snappy.compress(content)),
}


def held(content: bytes, path: str = "a.bin", **how: object) -> dict[str, bytes]:
    """What a file holds, by path."""
    given = Unpacking(**{"most": 10**9, "order": by_name, **how})  # type: ignore[arg-type]  # its own fields
    with contents(io.BytesIO(content), path, None, given) as found:
        return {part.path: part.stream.read() for part in found.parts}


def refusal(content: bytes, path: str = "a.bin", **how: object) -> str:
    with pytest.raises(PlatformError) as refused:
        held(content, path, **how)
    return str(refused.value)


# One compressed file.


@pytest.mark.parametrize("name", PACKERS)
def test_a_compressed_file_is_known_by_its_first_bytes_and_its_streams_are_one(name: str) -> None:
    pack = PACKERS[name]
    assert held(pack(ROWS), "a.csv") == {"a.csv": ROWS}
    assert held(pack(NOISE)) == {"a.bin": NOISE}
    assert held(pack(b"")) == {"a.bin": b""}
    if name != "lzma":  # whose tools know of one stream alone
        assert held(pack(ROWS) + pack(b"3\n") + pack(NOISE)) == {"a.bin": ROWS + b"3\n" + NOISE}


@pytest.mark.parametrize("name", PACKERS)
def test_what_is_damaged_or_cut_off_anywhere_is_refused_whole(name: str) -> None:
    packed = PACKERS[name](NOISE)
    for kept in (len(packed) // 2, len(packed) - 1):
        assert f"{name} is " in refusal(packed[:kept])
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0x55
    if name not in ("lzma", "lz4", "zstd"):  # whose sums of the data may be left out
        assert f"{name} is damaged near byte" in refusal(bytes(damaged))
    assert f"{name} is " in refusal(packed + b"junk after the end")


@pytest.mark.parametrize("name", PACKERS)
def test_a_name_that_promises_a_compression_is_held_to_it(name: str) -> None:
    suffix = {"gzip": ".gz", "bzip2": ".bz2", "zstd": ".zst", "snappy": ".sz"}.get(name, f".{name}")
    assert f"it is named {suffix} but does not start like {name} (69 64" in refusal(ROWS, f"a.csv{suffix}")
    assert held(b"", f"a.csv{suffix}") == {f"a.csv{suffix}": b""}


@pytest.mark.parametrize(
    ("command", "content"),
    [
        ("xz -9e", ROWS), ("xz --block-size=65536 -T2", NOISE), ("xz --check=none", ROWS), ("lzma -9", ROWS),
        ("bzip2 -1", NOISE), ("zstd -19 --long=27", NOISE), ("zstd --no-check -T2", ROWS), ("zstd --content-size", b""),
        ("lz4 -9 -BD", NOISE), ("lz4 --content-size --no-frame-crc", ROWS), ("gzip -n", NOISE),
    ],
)  # fmt: skip
def test_what_the_command_line_tools_write_is_read(command: str, content: bytes) -> None:
    program = command.split()[0]
    try:
        done = subprocess.run([*command.split(), "-c"], input=content, capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip(f"{program} is not installed")
    assert held(done.stdout) == {"a.bin": content}


def test_zeros_after_gzip_and_xz_and_frames_to_be_passed_over_are_no_damage() -> None:
    assert held(gzip.compress(ROWS) + b"\0" * 512) == {"a.bin": ROWS}
    assert held(lzma.compress(ROWS) + b"\0" * 8) == {"a.bin": ROWS}
    skipped = struct.pack("<II", 0x184D2A53, 5) + b"hello"
    for name in ("zstd", "lz4"):
        assert held(skipped + PACKERS[name](ROWS)) == {"a.bin": ROWS}


def test_text_that_begins_like_a_compressed_file_is_text() -> None:
    for text in (b"BZh9 is a column\n1\n", b"]\0\0"):
        assert held(text) == {"a.bin": text}


def test_a_window_that_takes_too_much_memory_is_refused_with_the_way_out() -> None:
    wide = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]
    assert "takes more memory to unpack than is given for it" in refusal(lzma.compress(ROWS, filters=wide))
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([21 << 3]) + b"\x01\x00\x00"  # a window of 2 GiB, an empty block
    assert "takes more memory to unpack than is given for it" in refusal(frame)


@pytest.mark.parametrize("name", PACKERS)
def test_a_file_that_expands_beyond_the_limit_is_refused(name: str) -> None:
    packed = PACKERS[name](b"\0" * 3_000_000)
    assert f"of {name} expand to more than 2,000,000, the limit `max_unpacked`" in refusal(packed, most=2_000_000)


def test_what_is_packed_twice_is_unpacked_and_what_is_packed_over_and_over_is_not() -> None:
    packed = PACKERS["zstd"](PACKERS["gzip"](ROWS))
    assert held(packed, "a.csv.gz.zst") == {"a.csv.gz.zst": ROWS}
    assert "packed more than 3 times over" in refusal(PACKERS["xz"](PACKERS["gzip"](packed)))


# Archives.


def test_members_are_read_by_name_with_their_paths_and_by_their_pattern(tmp_path: Path) -> None:
    files = {"eu/10.csv": b"id\n10\n", "eu/9.csv": b"id\n9\n", "readme.txt": b"not,a,table\n", "us/1.csv": b"id\n1\n"}
    write(tmp_path, "a.zip", zipped(files), 1)
    write(tmp_path, "b.tar.gz", gzip.compress(tarred({"x.csv": b"id\n5\nbroken,line\n"})), 2)
    reader = Reader(tmp_path, path="*.*", members="*.csv")
    (batch,) = reader.batches()
    assert [(row["id"], row["_file"], row["_line"]) for row in batch.rows.to_pylist()] == [
        ("9", "a.zip!/eu/9.csv", 2),
        ("10", "a.zip!/eu/10.csv", 2),
        ("1", "a.zip!/us/1.csv", 2),
        ("5", "b.tar.gz!/x.csv", 2),
    ]
    assert batch.rejects["place"].to_pylist() == ["b.tar.gz!/x.csv:3"]
    assert sorted(reader.position) == ["a.zip", "b.tar.gz"]
    assert reader.batches() == []
    assert held(zipped(files), "a.zip", members="eu/1*.csv") == {"a.zip!/eu/10.csv": b"id\n10\n"}


def test_an_archive_is_loaded_whole_or_not_at_all_and_the_member_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.zip", zipped({"1.csv": ROWS, "2.csv": b"PAR1" + b"\0" * 50}), 1)
    write(tmp_path, "b.zip", zipped({"1.csv": b"id\n7\n"}), 2)
    reader = Reader(tmp_path, path="*.zip")
    with pytest.raises(PlatformError, match=r"a\.zip: 2\.csv: .*declared CSV, but it is a Parquet file"):
        reader.batches()
    assert reader.landed_ids() == ["7"]
    assert sorted(reader.position) == ["b.zip"]


def test_empty_members_and_archives_are_no_rows_of_additions_and_no_snapshot(tmp_path: Path) -> None:
    write(tmp_path, "a.zip", zipped({"1.csv": b"", "2.csv": ROWS}), 1)
    write(tmp_path, "b.zip", zipped({}), 2)
    write(tmp_path, "c.tar", tarred({}), 3)
    reader = Reader(tmp_path, path="*")
    assert reader.ids() == ["1", "2"]
    assert sorted(reader.position) == ["a.zip", "b.zip", "c.tar"]
    assert "b.zip is an archive without a file." in [note for batch in reader.landed for note in batch.notes]
    with pytest.raises(PlatformError, match=r"c\.tar: the archive holds no file, which no snapshot is") as refused:
        Reader(tmp_path, path="*", deliveries="snapshot").batches()
    assert "a.zip: 1.csv: it is empty (0 bytes), and a snapshot" in str(refused.value)


def test_a_snapshot_may_come_as_an_archive_of_several_files(tmp_path: Path) -> None:
    write(tmp_path, "a.zip", zipped({"1.csv": ROWS, "2.csv": b"id\n3\n"}), 1)
    reader = Reader(tmp_path, path="*.zip", deliveries="snapshot")
    (batch,) = reader.batches()
    assert (batch.kind, batch.rows["id"].to_pylist()) == ("whole", ["1", "2", "3"])


def test_archives_in_archives_and_packed_members_are_gone_into_as_far_as_people_do() -> None:
    inner = zipped({"1.csv": ROWS, "2.txt": b"no"})
    whole = tarred(
        {"z/in.zip": inner, "a.csv.gz": gzip.compress(ROWS), "b.tar.xz": lzma.compress(tarred({"c.csv": ROWS}))}
    )
    assert held(PACKERS["zstd"](whole), "d.tar.zst", members="*.csv*") == {
        "d.tar.zst!/a.csv.gz": ROWS,
        "d.tar.zst!/b.tar.xz!/c.csv": ROWS,
        "d.tar.zst!/z/in.zip!/1.csv": ROWS,
    }
    deep = zipped({"3.zip": zipped({"2.zip": inner})})
    assert sorted(held(deep, "a.zip")) == ["a.zip!/3.zip!/2.zip!/1.csv", "a.zip!/3.zip!/2.zip!/2.txt"]
    message = refusal(zipped({"4.zip": deep}), "a.zip")
    assert message.startswith("4.zip!/3.zip!/2.zip: archives lie within one another more than 3 deep")


def test_documents_that_are_zips_are_files_of_their_format(tmp_path: Path) -> None:
    book = as_workbook(lambda workbook: workbook.add_worksheet().write_column(0, 0, ["id", 1]))
    write(tmp_path, "a.xlsx", book, 1)
    write(tmp_path, "b.zip", zipped({"in.xlsx": book, "__MACOSX/._in.xlsx": b"\0\5\x16\7", ".DS_Store": b"x"}), 2)
    reader = Reader(tmp_path, path="*", format={"type": "excel"})
    assert [row["_file"] for batch in reader.batches() for row in batch.rows.to_pylist()] == [
        "a.xlsx",
        "b.zip!/in.xlsx",
    ]
    with pytest.raises(PlatformError, match=r"a\.xlsx: .*declared CSV, but it is an Excel workbook"):
        Reader(tmp_path, path="*.xlsx").batches()
    write(tmp_path, "c.xlsx", book[:-40], 3)
    with pytest.raises(PlatformError, match=r"c\.xlsx: the workbook is damaged"):
        Reader(tmp_path, path="c*", format={"type": "excel"}).batches()


def test_members_with_types_land_as_their_files_would(tmp_path: Path) -> None:
    rows = as_parquet(pa.table({"id": [1, 2]}))
    write(tmp_path, "a.tar", tarred({"a.parquet": rows}), 1)
    reader = Reader(tmp_path, path="*", format={"type": "parquet"})
    assert reader.ids() == [1, 2]
    write(tmp_path, "b.tar", tarred({"a.parquet": rows, "b.parquet": b""}), 1)
    with pytest.raises(
        PlatformError, match=r"b\.tar: b\.parquet: it is empty \(0 bytes\), which no file of its format"
    ):
        reader.batches()


def test_an_archive_without_a_wanted_member_is_refused_with_what_it_has() -> None:
    message = refusal(zipped({f"{n}.txt": b"x" for n in range(7)}), members="*.csv")
    assert "no member that `members` (*.csv) wants. It has: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more" in message


@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_an_archive_that_is_cut_off_or_still_written_is_refused_and_read_when_it_is_whole(
    tmp_path: Path, pack: Callable[[Mapping[str, bytes]], bytes]
) -> None:
    whole = pack({"1.csv": ROWS, "2.csv": b"id\n3\n"})
    reader = Reader(tmp_path, path="a.*")
    for kept in (600, 1536, 2048) if pack is tarred else (50, len(whole) - 1):
        write(tmp_path, "a.bin", whole[:kept], kept)
        with pytest.raises(PlatformError, match="archive has no end: it is still being written, or was cut off"):
            reader.batches()
    write(tmp_path, "a.bin", whole, 9_999)
    assert reader.ids() == ["1", "2", "3"]


def test_a_damaged_member_refuses_the_archive_and_is_named() -> None:
    whole = bytearray(zipped({"good.csv": ROWS, "bad.csv": NOISE}, zipfile.ZIP_STORED))
    whole[1000] ^= 1
    assert refusal(bytes(whole)).startswith("bad.csv: it is damaged in the zip archive: Bad CRC-32")
    header = bytearray(tarred({"a.csv": ROWS, "b.csv": ROWS}))
    header[1024 + 5] ^= 1
    assert "the tar archive is damaged: no header at byte 1,024" in refusal(bytes(header))


def test_archives_written_one_after_the_other_are_refused_as_the_first_would_be_lost() -> None:
    for pack in (zipped, tarred):
        assert "written one after the other" in refusal(pack({"a": ROWS}) + pack({"b": ROWS}))


def test_members_that_share_their_bytes_are_refused() -> None:
    whole = bytearray(zipped({"a.csv": NOISE, "b.csv": NOISE}))
    at = whole.rindex(b"PK\x01\x02")
    whole[at + 42 : at + 46] = struct.pack("<I", 20)  # the second begins within the first
    assert "made to do harm, or damaged: a.csv lies over what follows it" in refusal(bytes(whole))


@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_limits_hold_in_archives(pack: Callable[[Mapping[str, bytes]], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "expand to more than 100,000" in refusal(pack({"a": b"x" * 60_000, "b": b"y" * 60_000}), most=100_000)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    monkeypatch.setattr(unpacking, "MOST_MEMBERS", 3)
    assert "more than 3 members" in refusal(pack({str(n): b"" for n in range(4)}))
    assert "more than 3 members" in refusal(pack({str(n): pack({"a": b"", "b": b""}) for n in range(3)}))
    assert "path has more than 4,096 characters" in refusal(pack({"x" * 5_000: ROWS}))
    monkeypatch.setattr(unpacking, "RATIO_FROM", 1_000)
    monkeypatch.setattr(unpacking, "RATIO", 100)
    assert "more than 100 times as many" in refusal(gzip.compress(pack({"a": b"\0" * 2_000_000})))


def test_a_directory_or_a_name_that_would_fill_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_READ", 100_000)
    assert "more than the 100,000 that are held in memory" in refusal(zipped({f"{n:0100}": b"" for n in range(1000)}))
    assert "more than the 100,000 that are held in memory" in refusal(tarred({"x" * 200_000: b""}, tarfile.GNU_FORMAT))


def test_names_never_leave_the_archive_and_are_shown_as_they_are_read(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    files = {"../../out.csv": ROWS, "/etc/x.csv": ROWS, "a\nb.csv": ROWS, "É/é.csv": ROWS}
    for pack in (zipped, tarred):
        with contents(io.BytesIO(pack(files)), "a.zip", spool, Unpacking(10**9)) as found:
            paths = [part.path for part in found.parts]
            assert list(tmp_path.rglob("*")) == [spool]
        assert paths == ["a.zip!/a\\nb.csv", "a.zip!/etc/x.csv", "a.zip!/out.csv", "a.zip!/É/é.csv"]


def test_redundant_parts_of_names_mean_nothing() -> None:
    for pack in (zipped, tarred):
        found = held(pack({"./eu//a.csv": ROWS, "b/./c.csv": ROWS}), "a", members="eu/*.csv")
        assert list(found) == ["a!/eu/a.csv"]


def test_names_are_read_as_the_code_page_or_as_utf_8() -> None:
    def unmarked(name: bytes) -> bytes:
        whole = zipped({"x" * len(name): ROWS})
        return whole.replace(b"x" * len(name), name)

    assert list(held(unmarked("Köln.csv".encode("cp437")), "a")) == ["a!/Köln.csv"]
    assert list(held(unmarked("Köln.csv".encode()), "a")) == ["a!/Köln.csv"]


def test_of_two_members_of_a_name_tar_has_the_last_and_zip_none() -> None:
    twice = zipped({"a.csv": ROWS, "b.csv": ROWS}).replace(b"b.csv", b"a.csv")
    assert "two members of the name a.csv, and nothing says which one counts" in refusal(twice)
    body = tarred({"a.csv": b"id\n1\n"})[:1024] + tarred({"a.csv": b"id\n2\n"})
    assert held(body, "a") == {"a!/a.csv": b"id\n2\n"}


def test_links_and_devices_are_passed_over_with_a_note() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"x{kind!r}.csv")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("a.csv")
        info.size = len(ROWS)
        archive.addfile(info, io.BytesIO(ROWS))
    link = zipfile.ZipInfo("link.csv")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    linked = io.BytesIO()
    with zipfile.ZipFile(linked, "w") as opened:
        opened.writestr(link, "/etc/passwd")
        opened.writestr("a.csv", ROWS)
    for content, count in ((out.getvalue(), 4), (linked.getvalue(), 1)):
        with contents(io.BytesIO(content), "a", None, Unpacking(10**9)) as found:
            assert [part.path for part in found.parts] == ["a!/a.csv"]
            assert list(found.notes) == [f"a: {count} links and devices in the archive were passed over."]


def test_zips_written_to_a_pipe_or_beyond_4_gib_have_other_headers_and_are_read() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.written = b""

        def writable(self) -> bool:
            return True

        def write(self, block: object) -> int:
            self.written += bytes(block)  # type: ignore[call-overload]  # bytes of some kind
            return len(bytes(block))  # type: ignore[call-overload]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.csv", "w", force_zip64=True) as member:
            member.write(ROWS)
        archive.writestr("b.csv", ROWS)
    assert held(pipe.written, "a") == {"a!/a.csv": ROWS, "a!/b.csv": ROWS}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert held(zipped({"a.csv": NOISE}, method), "a") == {"a!/a.csv": NOISE}


def test_methods_of_zip_that_are_not_read_are_named() -> None:
    whole = bytearray(zipped({"a.csv": ROWS}))
    for at in (8, whole.rindex(b"PK\x01\x02") + 10):
        whole[at : at + 2] = struct.pack("<H", 9)
    assert "a.csv: it is packed by deflate64, which is not read. Have it packed by deflate" in refusal(bytes(whole))


def test_tars_of_every_make_are_read_holes_included(tmp_path: Path) -> None:
    name = "d" * 60 + "/" + "n" * 120 + ".csv"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert held(tarred({name: ROWS}, form), "a") == {f"a!/{name}": ROWS}
    with (tmp_path / "holes.csv").open("wb") as file:
        file.write(ROWS)
        file.seek(1 << 20)
        file.write(ROWS)
    for form_name in ("gnu", "pax"):
        packed = subprocess.run(
            ["tar", "-C", tmp_path, "--sparse", f"--format={form_name}", "-cf", "-", "holes.csv"],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        assert len(packed) < 100_000
        assert held(packed, "a") == {"a!/holes.csv": (tmp_path / "holes.csv").read_bytes()}
    v7 = subprocess.run(
        ["tar", "-C", tmp_path, "--format=v7", "-cf", "-", "holes.csv"], check=True, capture_output=True
    ).stdout
    assert held(v7, "a") == {"a!/holes.csv": (tmp_path / "holes.csv").read_bytes()}


def encrypted(password: bytes, **how: object) -> bytes:
    out = io.BytesIO()
    with pyzipper.AESZipFile(out, "w", compression=zipfile.ZIP_DEFLATED, **how) as archive:
        archive.setpassword(password)
        archive.writestr("a.csv", ROWS)
    return out.getvalue()


def test_encrypted_zips_are_read_by_their_password_and_refused_without_it() -> None:
    content = encrypted(b"secret", encryption=pyzipper.WZ_AES)
    assert held(content, "a", keys=Keys(b"secret")) == {"a!/a.csv": ROWS}
    assert "is encrypted (a.csv). Set `zip_password: '{{ env.NAME }}'` of the source" in refusal(content)
    message = refusal(content, keys=Keys(b"wrong"))
    assert message.startswith("a.csv: it is encrypted, and `zip_password` of the source is not its password")
    assert "wrong" not in message
    damaged = bytearray(content)
    damaged[66] ^= 1
    assert "a.csv: it is damaged in the zip archive, or `zip_password`" in refusal(bytes(damaged), keys=Keys(b"secret"))


def test_the_old_encryption_of_zip_is_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(ROWS)
    try:
        subprocess.run(["zip", "-q", "-P", "secret", "a.zip", "a.csv"], cwd=tmp_path, check=True)
    except FileNotFoundError:
        pytest.skip("zip is not installed")
    content = (tmp_path / "a.zip").read_bytes()
    assert held(content, "a", keys=Keys(b"secret")) == {"a!/a.csv": ROWS}
    assert "is not its password" in refusal(content, keys=Keys(b"wrong"))


def test_large_members_are_unpacked_into_the_spool_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "SPOOL_MEMORY", 1_000)
    packed = gzip.compress(tarred({"a.zip": zipped({"1": NOISE, "2": NOISE[::-1]})}))
    with contents(io.BytesIO(packed), "a", tmp_path, Unpacking(10**9)) as found:
        assert list(tmp_path.iterdir()) == []
        one, two = found.parts
        assert (one.stream.read(10), two.stream.read(), one.stream.read()) == (NOISE[:10], NOISE[::-1], NOISE[10:])


NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/\\"), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        NAMES.filter(lambda name: not archives.is_junk(name) and name[0] != "."), st.binary(max_size=2_000)
    ),
    st.sampled_from(sorted(PACKERS)),
    st.sampled_from(["zip", "tar"]),
)
def test_what_was_packed_comes_back_byte_for_byte(files: dict[str, bytes], packer: str, kind: str) -> None:
    files = {name: b"id" + content for name, content in files.items()}  # packed by nothing
    whole = PACKERS[packer](zipped(files) if kind == "zip" else tarred(files))
    found = held(whole, f"a.{kind}")
    assert sorted(found.values()) == sorted(files.values())
    assert {path.partition("!/")[2] for path in found} == {archives.shown(name) for name in files}
