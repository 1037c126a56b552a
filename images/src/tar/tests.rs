use super::*;

const LIMITS: Limits = Limits { entries: 100, bytes: 1 << 20 };

/// Reads an archive to its end: each entry, and its contents.
fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    read_within(archive, LIMITS)
}

fn read_within(archive: &[u8], limits: Limits) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(archive, limits);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut bytes = vec![0; entry.size as usize];
        reader.contents(|place, part| {
            bytes[place as usize..][..part.len()].copy_from_slice(part);
            Ok(())
        })?;
        all.push((entry, bytes));
    }
    Ok(all)
}

fn header(kind: EntryType, path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(path).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header.set_cksum();
    header
}

/// Header and contents, filled up to whole blocks.
fn entry(header: &tar::Header, contents: &[u8]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, contents: &[u8]) -> Vec<u8> {
    entry(&header(EntryType::Regular, path, contents.len() as u64), contents)
}

fn record(text: &str) -> Vec<u8> {
    // The length counts itself.
    let length =
        (1..).map(|digits| (text.len() + 2 + digits, digits)).find(|(n, d)| n.to_string().len() == *d);
    format!("{} {text}\n", length.unwrap().0).into_bytes()
}

fn pax(records: &[&str]) -> Vec<u8> {
    let bytes: Vec<u8> = records.iter().flat_map(|text| record(text)).collect();
    entry(&header(EntryType::XHeader, "pax", bytes.len() as u64), &bytes)
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

#[test]
fn plain_entries() {
    let archive = [file("a/b", b"hello"), file("c", b""), end()].concat();
    let all = read(&archive).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].0.path.as_slice(), all[0].1.as_slice()), (&b"a/b"[..], &b"hello"[..]));
    assert_eq!((all[0].0.mode, all[0].0.uid, all[0].0.gid, all[0].0.mtime.seconds), (0o644, 1, 2, 3));
}

#[test]
fn pax_says_more_than_the_header() {
    let long = "d/".repeat(200) + "f";
    let archive = [
        pax(&[&format!("path={long}"), "uid=4000000", "mtime=9.5", "SCHILY.xattr.user.x=1"]),
        file("short", b"x"),
        file("next", b""),
        end(),
    ]
    .concat();
    let all = read(&archive).unwrap();
    assert_eq!(all[0].0.path, long.as_bytes());
    assert_eq!((all[0].0.uid, all[0].0.mtime), (4_000_000, Time { seconds: 9, nanoseconds: 500_000_000 }));
    assert_eq!(all[0].0.xattrs, [(b"user.x".to_vec(), b"1".to_vec())]);
    assert_eq!((all[1].0.path.as_slice(), all[1].0.uid), (&b"next"[..], 1));
}

#[test]
fn gnu_long_names() {
    let name = "n".repeat(300);
    let text = format!("{name}\0").into_bytes();
    let archive = [
        entry(&header(EntryType::GNULongName, "././@LongLink", text.len() as u64), &text),
        file("short", b"x"),
        end(),
    ]
    .concat();
    assert_eq!(read(&archive).unwrap()[0].0.path, name.as_bytes());
}

/// CVE-2025-62518 in other readers: the size of a pax header counts, not the header block's.
#[test]
fn the_size_of_pax_counts() {
    let inner = file("smuggled", b"");
    let mut outer = header(EntryType::Regular, "outer", 0);
    outer.set_cksum();
    let archive =
        [pax(&[&format!("size={}", inner.len())]), outer.as_bytes().to_vec(), inner.clone(), end()].concat();
    let all = read(&archive).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].0.path.as_slice(), &all[0].1), (&b"outer"[..], &inner));
}

#[test]
fn sparse_files_of_gnu() {
    let mut sparse = header(EntryType::GNUSparse, "holes", 6);
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(2);
    gnu.sparse[0].set_length(3);
    gnu.sparse[1].set_offset(10);
    gnu.sparse[1].set_length(2);
    gnu.set_is_extended(true);
    gnu.set_real_size(16);
    sparse.set_cksum();
    let mut more = tar::GnuExtSparseHeader::new();
    more.sparse[0].set_offset(14);
    more.sparse[0].set_length(1);
    let archive = [
        sparse.as_bytes().to_vec(),
        entry_of_block(more.as_bytes()),
        filled(b"abcdef"),
        file("x", b""),
        end(),
    ]
    .concat();
    let all = read(&archive).unwrap();
    assert_eq!(all[0].1, b"\0\0abc\0\0\0\0\0de\0\0f\0");
    assert_eq!(all[1].0.path, b"x");
}

fn entry_of_block(block: &[u8; 512]) -> Vec<u8> {
    block.to_vec()
}

fn filled(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn sparse_files_of_pax() {
    let in_records = [
        pax(&["GNU.sparse.name=real", "GNU.sparse.size=8", "GNU.sparse.map=1,2,6,1"]),
        file("GNUSparseFile.0/real", b"abc"),
        end(),
    ]
    .concat();
    let all = read(&in_records).unwrap();
    assert_eq!((all[0].0.path.as_slice(), all[0].1.as_slice()), (&b"real"[..], &b"\0ab\0\0\0c\0"[..]));

    let data = [filled(b"2\n1\n2\n6\n1\n"), b"abc".to_vec()].concat();
    let in_data = [
        pax(&["GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=real", "GNU.sparse.realsize=8"]),
        file("GNUSparseFile.0/real", &data),
        end(),
    ]
    .concat();
    assert_eq!(read(&in_data).unwrap()[0].1, b"\0ab\0\0\0c\0");
}

/// What reading `archive` fails with.
fn check(archive: &[u8], why: &str) {
    let error = read(archive).unwrap_err();
    assert!(error.to_string().contains(why), "{error}: not {why:?}");
}

#[test]
fn archives_that_lie_are_refused() {
    let whole = [file("a", b"hello"), end()].concat();
    check(&whole[..514], "in the middle");
    check(&whole[..100], "in the middle");
    let mut wrong = whole.clone();
    wrong[0] = b'b';
    check(&wrong, "checksum");
    check(
        &[pax(&["GNU.sparse.size=4", "GNU.sparse.map=0,9"]), file("a", b"123456789"), end()].concat(),
        "does not fit",
    );
    check(
        &[pax(&["GNU.sparse.size=9", "GNU.sparse.map=4,2,0,2"]), file("a", b"1234"), end()].concat(),
        "does not fit",
    );
    check(
        &[pax(&["GNU.sparse.size=99999999999", "GNU.sparse.map=0,1"]), file("a", b"1"), end()].concat(),
        "the limit",
    );
    check(&[pax(&["size=999"]), file("a", b"1")].concat(), "in the middle");
    check(&[pax(&["uid=4294967295"]), file("a", b"1")].concat(), "its uid");
    check(&entry(&header(EntryType::XHeader, "x", 1 << 40), b""), "more than");
    check(&entry(&header(EntryType::new(b'V'), "label", 0), b""), "of a type");
    let many: Vec<u8> = (0..101).flat_map(|number| file(&number.to_string(), b"")).collect();
    check(&many, "more than 100 entries");
    let large = read_within(&file("a", &[1; 2000]), Limits { bytes: 1024, ..LIMITS }).unwrap_err();
    assert!(large.to_string().contains("more than 1024 bytes"), "{large}");
}

#[test]
fn numbers() {
    for (field, value) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"   17 \0", Some(0o17)),
        (b"", Some(0)),
        (b"\0\0\0", Some(0)),
        (b"\x80\0\0\0\0\0\x01\0", Some(256)),
        (b"\xff\xff\xff\xff", Some(-1)),
        (b"12a", None),
        (b"9", None),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
    ] {
        assert_eq!(number(field), value, "{field:?}");
    }
}

#[test]
fn an_end_that_is_not_marked_is_known() {
    for (tail, whole) in [(end(), true), (Vec::new(), false)] {
        let archive = [file("a", b"1"), tail].concat();
        let mut reader = Reader::new(archive.as_slice(), LIMITS);
        while reader.next_entry().unwrap().is_some() {}
        assert_eq!(reader.is_whole(), whole);
    }
}
