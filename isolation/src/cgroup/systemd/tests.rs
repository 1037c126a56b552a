use super::*;
use std::io::BufRead;
use std::io::BufReader;
use std::thread;

/// D-Bus specification, "Marshaling": alignment of an array of structs, and its length without the padding.
#[test]
fn properties_are_marshalled_as_the_specification_says() {
    let mut writer = Writer::new();
    writer.string("u");
    writer.properties(&[
        Property::new("PIDs", Value::U32s(vec![7])),
        Property::new("MemoryMax", Value::U64(1)),
        Property::new("Delegate", Value::Bool(true)),
    ]);
    let expected: &[&[u8]] = &[
        b"\x01\0\0\0u\0\0\0",
        b"\0\0\0\0\0\0\0\0",
        b"\x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0\x07\0\0\0",
        b"\x09\0\0\0MemoryMax\0\x01t\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
        b"\x08\0\0\0Delegate\0\x01b\0\x01\0\0\0",
    ];
    let mut expected = expected.concat();
    let length = expected.len() as u32 - 16;
    expected[8..12].copy_from_slice(&length.to_le_bytes());
    assert_eq!(writer.bytes(), expected);
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let mut body = Writer::new();
    body.u32(5);
    body.string("/job/5");
    let bytes = message::call(9, "to", "/a/b", "an.interface", "Do", "uo", &body);
    assert_eq!(Message::length(&bytes[..16]), Ok(bytes.len()));
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.kind, message.serial, message.name.as_str()), (Kind::Call, 9, "Do"));
    assert_eq!(message.signature, "uo");
    let mut body = message.body();
    assert_eq!((body.u32(), body.string()), (Ok(5), Ok("/job/5")));
    for cut in 0..bytes.len() {
        drop(Message::parse(&bytes[..cut]));
    }
}

#[test]
fn addresses_are_found() {
    let check = |text: &str, expected: Option<Address>| {
        assert_eq!(parse_address(text.as_bytes()), expected, "{text}");
    };
    check("unix:path=/run/user/1000/bus", Some(Address::Daemon("/run/user/1000/bus".into())));
    check("tcp:host=a;unix:guid=1,path=/a%20b", Some(Address::Daemon("/a b".into())));
    check("unix:abstract=/tmp/x,guid=2", Some(Address::Abstract(b"/tmp/x".to_vec())));
    check("tcp:host=a", None);

    let none = |_: &str| None;
    assert_eq!(addresses(Bus::System, none, false).len(), 1);
    assert_eq!(addresses(Bus::System, none, true)[1], Address::Direct("/run/systemd/private".into()));
    assert_eq!(addresses(Bus::User, none, true), []);
    let runtime = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| b"/r".to_vec());
    assert_eq!(addresses(Bus::User, runtime, false)[0], Address::Daemon("/r/bus".into()));
}

/// The other end: answers each call by what `answer` writes for its name.
fn fake(
    stream: UnixStream,
    answer: impl Fn(&Message) -> Vec<u8> + Send + 'static,
) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        let mut said = Vec::new();
        for reply in ["DATA\r\n", "OK 0123\r\n", ""] {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            said.push(line.trim_end().to_owned());
            stream.write_all(reply.as_bytes()).unwrap();
        }
        let mut head = vec![0; 16];
        while reader.read_exact(&mut head).is_ok() {
            let mut bytes = head.clone();
            bytes.resize(Message::length(&head).unwrap(), 0);
            reader.read_exact(&mut bytes[16..]).unwrap();
            let message = Message::parse(&bytes).unwrap();
            said.push(message.name.clone());
            if stream.write_all(&answer(&message)).is_err() {
                break;
            }
        }
        said
    })
}

fn returns(to: &Message, signature: &str, body: &Writer) -> Vec<u8> {
    message::build(Kind::Return, 1, |w| w.field(5, "u", |w| w.u32(to.serial)), signature, body)
}

fn refuses(to: &Message, name: &str) -> Vec<u8> {
    let mut text = Writer::new();
    text.string("No.");
    let fields = |w: &mut Writer| {
        w.field(5, "u", |w| w.u32(to.serial));
        w.field(4, "s", |w| w.string(name));
    };
    message::build(Kind::Error, 1, fields, "s", &text)
}

fn job_removed(job: &str, result: &str) -> Vec<u8> {
    let mut body = Writer::new();
    body.u32(1);
    body.string(job);
    body.string("a.scope");
    body.string(result);
    message::build(Kind::Signal, 1, |w| w.field(3, "s", |w| w.string("JobRemoved")), "uoss", &body)
}

fn job(path: &str) -> Writer {
    let mut body = Writer::new();
    body.string(path);
    body
}

fn talk(
    answer: impl Fn(&Message) -> Vec<u8> + Send + 'static,
    ask: impl FnOnce(&mut Connection) -> Result<()>,
) -> (String, Vec<String>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let bus = fake(theirs, answer);
    let outcome = Connection::begin(ours, true, Duration::from_millis(300)).and_then(|mut c| ask(&mut c));
    (outcome.map_or_else(|error| error.to_string(), |()| "done".into()), bus.join().unwrap())
}

fn start(connection: &mut Connection) -> Result<()> {
    connection.start_scope("a.scope", &[])
}

#[test]
fn a_scope_is_there_when_its_own_job_is_done() {
    // The signal may come before the answer, and those of other jobs are not ours.
    let answer = |message: &Message| match message.name.as_str() {
        "StartTransientUnit" => {
            let signals = [job_removed("/job/7", "failed"), job_removed("/job/8", "done")].concat();
            [signals, returns(message, "o", &job("/job/8"))].concat()
        }
        _ => returns(message, "", &Writer::new()),
    };
    let (outcome, said) = talk(answer, start);
    assert_eq!(outcome, "done");
    let expected =
        ["\0AUTH EXTERNAL", "DATA", "BEGIN", "Hello", "AddMatch", "Subscribe", "StartTransientUnit"];
    assert_eq!(said, expected);
}

#[test]
fn a_failed_job_names_unit_and_result() {
    let answer = |message: &Message| {
        [returns(message, "o", &job("/job/8")), job_removed("/job/8", "timeout")].concat()
    };
    assert_eq!(talk(answer, start).0, "systemd's job to start a.scope ended as \"timeout\"");
}

#[test]
fn a_wait_has_an_end_and_says_what_it_was_for() {
    let answer = |message: &Message| returns(message, "o", &job("/job/8"));
    assert_eq!(talk(answer, start).0, "no end after 0.3 s of waiting for systemd to start a.scope");
}

#[test]
fn what_a_failed_scope_left_is_cleared_away_once() {
    let answer = |message: &Message| match message.name.as_str() {
        "StartTransientUnit" => refuses(message, UNIT_EXISTS),
        _ => returns(message, "", &Writer::new()),
    };
    let (outcome, said) = talk(answer, start);
    assert_eq!(outcome, "No. (org.freedesktop.systemd1.UnitExists)");
    assert_eq!(said[6..], ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

#[test]
fn to_stop_what_is_not_there_is_no_error() {
    let answer = |message: &Message| match message.name.as_str() {
        "StopUnit" | "ResetFailedUnit" => refuses(message, NO_SUCH_UNIT),
        _ => returns(message, "", &Writer::new()),
    };
    assert_eq!(talk(answer, |c| c.stop_unit("a.scope")).0, "done");
    assert_eq!(talk(answer, |c| c.reset_failed_unit("a.scope")).0, "done");
}

/// A bus daemon of the wild, where there is one.
#[test]
fn the_real_daemon_takes_us() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let daemon = std::process::Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--nosyslog"])
        .arg(format!("--address=unix:path={}", path.display()))
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(mut daemon) = daemon else {
        println!("SKIP: no dbus-daemon here");
        return;
    };
    // Its socket has a name before anybody listens there.
    let until = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&path).is_err() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let outcome = dial(&Address::Daemon(path)).and_then(|stream| Connection::begin(stream, true, PATIENCE));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    // It took Hello and AddMatch; there is no systemd on it.
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("org.freedesktop.systemd1"), "{error}");
}

/// The D-Bus specification: a property is a variant, its type before its value.
#[test]
fn a_property_is_read_if_it_is_text() {
    let answer = |signature: &'static str| {
        move |message: &Message| {
            let mut body = Writer::new();
            body.signature(signature);
            body.string("257.13");
            returns(message, if message.name == "Get" { "v" } else { "" }, &body)
        }
    };
    let ask = |connection: &mut Connection| match connection.manager_property("Version")?.as_str() {
        "257.13" => Ok(()),
        other => Err(Error::new(other)),
    };
    assert_eq!(talk(answer("s"), ask).0, "done");
    assert_eq!(talk(answer("as"), ask).0, "Version has the type \"as\"");
}
