//! Network devices of the host that go into a container (runtime-spec config-linux.md, "Network Devices").

use crate::netlink::{HEADER, Netlink, Request, attributes, u32_at};
use crate::{Context, Error, Result, sys};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Moves the device `name` of our network namespace into `namespace`, where it is called `new_name` (with `%d` in it
/// the kernel puts a number there), and brings it up. It keeps what the kernel lets it keep, MTU and hardware address
/// among others, and gets its permanent global addresses back, which the kernel takes from it on the way.
///
/// # Errors
/// When there is no such device, when the name is taken in `namespace`, or the kernel's: `EPERM` without
/// `CAP_NET_ADMIN` here and there, `EINVAL` for a device that is bound to its namespace.
pub fn move_device(name: &str, namespace: BorrowedFd<'_>, new_name: &str) -> Result<()> {
    try_move(name, namespace, new_name).doing(|| match name == new_name {
        true => format!("move the network device {name}"),
        false => format!("move the network device {name} as {new_name}"),
    })
}

fn try_move(name: &str, namespace: BorrowedFd<'_>, new_name: &str) -> Result<()> {
    if new_name.is_empty() || new_name.len() >= libc::IFNAMSIZ || new_name.contains(['/', '\0']) {
        return Err(Error::new(format!("{new_name:?} is not the name of a network device")));
    }
    let mut here = Route::open()?;
    let mut there = Route::open_in(namespace)?;
    let missing = || Error::new("there is no such device in our network namespace");
    let index = here.links()?.into_iter().find(|link| link.name == name).ok_or_else(missing)?.index;
    let before = there.links()?;
    if before.iter().any(|link| link.name == new_name) {
        return Err(Error::new("the container's network namespace has a device of that name already"));
    }
    let addresses = here.addresses(index)?;

    let mut request = link_request(index, 0);
    request.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    request.attribute(libc::IFLA_IFNAME, &[new_name.as_bytes(), b"\0"].concat());
    here.0.ask(request)?;

    // Its index may be another one now.
    let prefix = new_name.split_once("%d").map(|(prefix, _)| prefix);
    let fits = |link: &Link| prefix.map_or(link.name == new_name, |prefix| link.name.starts_with(prefix));
    let index = there
        .links()?
        .into_iter()
        .find(|link| fits(link) && !before.contains(link))
        .ok_or_else(|| Error::new("it is not where it was moved to"))?
        .index;
    for address in &addresses {
        there.add_address(index, address).doing(|| "give it its addresses back")?;
    }
    there.0.ask(link_request(index, libc::IFF_UP as u32)).doing(|| "bring it up")
}

/// `RTM_NEWLINK` for a device that exists, setting `flags`.
fn link_request(index: u32, flags: u32) -> Request {
    let mut request = Request::new(libc::RTM_NEWLINK, 0);
    request.bytes.extend([libc::AF_UNSPEC as u8, 0, 0, 0]);
    request.bytes.extend(index.to_ne_bytes());
    request.bytes.extend(flags.to_ne_bytes());
    request.bytes.extend(flags.to_ne_bytes());
    request
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
}

/// An address as the kernel described it: its family, prefix and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// What an address is wanted to be, as opposed to what has become of it.
const WISHES: u32 = libc::IFA_F_NODAD
    | libc::IFA_F_HOMEADDRESS
    | libc::IFA_F_MANAGETEMPADDR
    | libc::IFA_F_NOPREFIXROUTE
    | libc::IFA_F_MCAUTOJOIN;
const IFA_RT_PRIORITY: u16 = 9;
const COPIED: [u16; 4] = [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_BROADCAST, IFA_RT_PRIORITY];

/// A way to configure a network namespace.
#[derive(Debug)]
struct Route(Netlink);

impl Route {
    fn open() -> Result<Self> {
        sys::netlink::route().map(|socket| Route(Netlink::new(socket)))
    }

    fn open_in(namespace: BorrowedFd<'_>) -> Result<Self> {
        Netlink::open_in(namespace, sys::netlink::route).map(Route)
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        let mut request = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP);
        request.bytes.resize(HEADER + LINK_HEADER, 0);
        let mut links = Vec::new();
        self.0.talk(request, |kind, content| {
            let named = attributes(content, LINK_HEADER).find(|(number, _)| *number == libc::IFLA_IFNAME);
            if let (libc::RTM_NEWLINK, Some((_, name))) = (kind, named) {
                let name = String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned();
                links.push(Link { index: u32_at(content, 4), name });
            }
        })?;
        Ok(links)
    }

    /// The addresses of a device that somebody gave it and that are good everywhere.
    fn addresses(&mut self, index: u32) -> Result<Vec<Address>> {
        let mut request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP);
        request.bytes.resize(HEADER + ADDRESS_HEADER, 0);
        let mut addresses = Vec::new();
        self.0.talk(request, |kind, content| {
            if kind != libc::RTM_NEWADDR || content.len() < ADDRESS_HEADER || u32_at(content, 4) != index {
                return;
            }
            let all: Vec<_> = attributes(content, ADDRESS_HEADER).collect();
            let long = all.iter().find(|(number, _)| *number == libc::IFA_FLAGS);
            let flags = long.map_or(content[2].into(), |(_, flags)| u32_at(flags, 0));
            if flags & libc::IFA_F_PERMANENT == 0 || content[3] != libc::RT_SCOPE_UNIVERSE {
                return;
            }
            let copied = all.into_iter().filter(|(number, _)| COPIED.contains(number));
            let attributes = copied.map(|(number, value)| (number, value.to_vec())).collect();
            let (family, prefix) = (content[0], content[1]);
            addresses.push(Address { family, prefix, flags: flags & WISHES, attributes });
        })?;
        Ok(addresses)
    }

    fn add_address(&mut self, index: u32, address: &Address) -> Result<()> {
        let mut request = Request::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
        request.bytes.extend([address.family, address.prefix, 0, libc::RT_SCOPE_UNIVERSE]);
        request.bytes.extend(index.to_ne_bytes());
        for (number, value) in &address.attributes {
            request.attribute(*number, value);
        }
        request.attribute(libc::IFA_FLAGS, &address.flags.to_ne_bytes());
        self.0.ask(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fs, process};
    use std::os::fd::{AsFd, OwnedFd};
    use std::path::Path;
    use std::process::Command;

    fn ip(line: &str) -> std::result::Result<String, String> {
        let output = Command::new("ip").args(line.split(' ')).output().map_err(|error| error.to_string())?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Runs `test` in a namespace of its own, with another beside it; a thread, because the namespace is one's.
    fn between_namespaces(test: impl FnOnce(&OwnedFd) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            let prepare = || -> std::result::Result<OwnedFd, String> {
                let new = || process::unshare(libc::CLONE_NEWNET).map_err(|error| error.to_string());
                new()?;
                let own = Path::new("/proc/thread-self/ns/net");
                let there = fs::open(own, 0).map_err(|error| error.to_string())?;
                new()?;
                ip("link add here type veth peer name other")?;
                Ok(there)
            };
            match prepare() {
                Ok(there) => test(&there),
                Err(error) => println!("SKIP: no network namespaces with devices here: {error}"),
            }
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_device_keeps_its_attributes_and_permanent_global_addresses() {
        between_namespaces(|there| {
            ip("link set here mtu 1400 address 02:00:00:00:00:77 up").unwrap();
            ip("address add 10.1.2.3/24 dev here").unwrap();
            ip("address add 10.1.2.4/32 dev here valid_lft 1000 preferred_lft 1000").unwrap();
            ip("address add 169.254.1.1/16 dev here scope link").unwrap();
            let ipv6 = ip("address add fd00::7/64 dev here nodad").is_ok();
            move_device("here", there.as_fd(), "eth0").unwrap();
            assert!(ip("link show here").is_err());
            process::setns(there.as_fd(), libc::CLONE_NEWNET).unwrap();
            let text = ip("address show eth0").unwrap();
            let has =
                |part: &str, expected: bool| assert_eq!(text.contains(part), expected, "{part}: {text}");
            has("mtu 1400", true);
            has("02:00:00:00:00:77", true);
            has(",UP", true);
            has("inet 10.1.2.3/24", true);
            has("inet 10.1.2.4", false);
            has("169.254.1.1", false);
            has("inet6 fd00::7/64", ipv6);
        });
    }

    #[test]
    fn a_taken_name_is_refused_before_anything_moves() {
        between_namespaces(|there| {
            move_device("here", there.as_fd(), "eth0").unwrap();
            let error = move_device("other", there.as_fd(), "eth0").unwrap_err().to_string();
            assert!(error.contains("has a device of that name already"), "{error}");
            ip("link show other").unwrap();
            move_device("other", there.as_fd(), "eth%d").unwrap();
            let error = move_device("other", there.as_fd(), "eth9").unwrap_err().to_string();
            assert!(error.contains("there is no such device"), "{error}");
            process::setns(there.as_fd(), libc::CLONE_NEWNET).unwrap();
            assert!(ip("link show eth1").unwrap().contains(",UP"));
        });
    }
}
