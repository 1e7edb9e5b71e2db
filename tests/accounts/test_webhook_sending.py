"""Where webhooks may go: addresses inside are refused, however they are written or resolved."""

import socket
import threading
from collections.abc import Iterator

import pytest

from accounts.services.webhook_sending import check_url, is_allowed, send
from tests.accounts.receiver import Receiver, receiving
from turnpike.kernel.errors import InvalidInput

REFUSED_URLS = [
    "http://example.com/",
    "ftp://example.com/",
    "https://",
    "https:///x",
    "//example.com",
    "example.com",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com/#x",
    "https://example.com\\@127.0.0.1/",
    "https://127.0.0.1/",
    "https://10.0.0.1/",
    "https://192.168.1.1/",
    "https://172.16.0.1/",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://0.0.0.0/",
    "https://100.100.100.200/",
    "https://168.63.129.16/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://192.0.0.192/",
    "https://198.18.0.1/",
]
REFUSED_ADDRESSES = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.31.255.255",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "192.88.99.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2001::1",
    "2001:db8::1",
    "100::1",
    "fec0::1",
]
# What the resolver of the system takes for a loopback or another inner address.
HOSTILE_HOSTS = [
    "localhost",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "0x7f.1",
    "017700000001",
]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_an_address_that_is_not_public_https_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url)


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_no_inner_address_is_allowed(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_a_name_for_an_inner_address_is_refused_when_it_is_resolved(host: str) -> None:
    answer = send(url=f"https://{host}/", headers={}, body=b"{}")

    assert answer.status is None
    assert answer.error in {"address", "name"}


def test_one_inner_address_among_public_ones_spoils_them_all() -> None:
    answer = send(
        url="https://mixed.example/",
        headers={},
        body=b"{}",
        resolve=lambda _host, _port: ["1.1.1.1", "10.0.0.1"],
    )

    assert answer.error == "address"


def test_a_name_that_changes_its_mind_is_asked_once(receiver: Receiver) -> None:
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    answer = send(
        url=f"http://rebinding.example:{receiver.port}/",
        headers={},
        body=b"{}",
        allows_loopback=True,
        resolve=rebinding,
    )

    assert (answer.status, asked) == (200, ["rebinding.example"])
    assert receiver.got[0][0]["host"] == f"rebinding.example:{receiver.port}"


def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 302, {"location": receiver.url}

    answer = send(url=receiver.url, headers={}, body=b"{}", allows_loopback=True)

    assert (answer.status, answer.is_success, len(receiver.got)) == (302, False, 1)


def test_of_a_long_answer_a_bounded_part_is_kept(receiver: Receiver) -> None:
    receiver.answer = b"x\x00" * 500_000

    answer = send(url=receiver.url, headers={}, body=b"{}", allows_loopback=True)

    assert answer.status == 200
    assert answer.body == "x" * 2_000


def test_who_drips_is_cut_off_at_the_deadline() -> None:
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        line, _address = listener.accept()
        with line:
            line.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.02):
                try:
                    line.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener])
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        answer = send(url=url, headers={}, body=b"{}", allows_loopback=True, seconds=0.3)
        ended.set()
        thread.join()

    assert (answer.status, answer.error) == (None, "timeout")
    assert answer.took_ms < 3_000


def test_plain_text_where_tls_is_due_is_no_answer(receiver: Receiver) -> None:
    url = receiver.url.replace("http:", "https:")

    answer = send(url=url, headers={}, body=b"{}", allows_loopback=True)

    assert (answer.status, answer.error) == (None, "tls")


def test_nobody_there_is_a_connection_that_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = send(url=f"http://127.0.0.1:{port}/", headers={}, body=b"", allows_loopback=True)

    assert answer.error == "connection"
