"""Two hosts of one application, each of which is cut off for a while."""

from __future__ import annotations

import copy
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from proxy import Proxy
from shop import FRACTION, PATIENCE, Load, Shop
from sqlalchemy import make_url
from support import unique, wait_until
from trial import END_LIMIT, LIMIT, stop_timed


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


class Host:
    """A network namespace, with a cable to this host, that a stack removes."""

    def __init__(self, stack: ExitStack, net: str) -> None:
        self.name = unique("pt")[:12]
        self.gateway, self.address = f"{net}.1", f"{net}.2"
        ip(f"netns add {self.name}")
        stack.callback(ip, f"netns delete {self.name}")
        inside = f"{self.name}i"
        ip(f"link add {self.name} type veth peer name {inside} netns {self.name}")
        ip(f"address add {self.gateway}/24 dev {self.name}")
        # While it is cut off, nothing for it may leave by the default route.
        ip(f"route add unreachable {net}.0/24 metric 1000")
        stack.callback(ip, f"route delete unreachable {net}.0/24")
        ip(f"-n {self.name} address add {self.address}/24 dev {inside}")
        ip(f"-n {self.name} link set {inside} up")
        self.heal()

    def cut(self) -> None:
        ip(f"link set {self.name} down")

    def heal(self) -> None:
        ip(f"link set {self.name} up")


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    with ExitStack() as stack:
        # The addresses are those for tests of networks, at random for other test runs.
        nets = random.sample(range(256), 2)
        try:
            found = [Host(stack, f"198.18.{net}") for net in nets]
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not make network namespaces (ip netns)")
        yield found


def open_branch(shop: Shop, host: Host, stack: ExitStack, url: str) -> Shop:
    """Return the shop as a host has it, which reaches the servers through proxies."""
    database, broker = (
        stack.enter_context(closing(Proxy(port, host.gateway))).port
        for port in (5432, 6379)
    )
    branch = copy.copy(shop)
    branch.address = host.address
    branch.command = (Path(str(shutil.which("ip"))), "netns", "exec", host.name)
    branch.ini = branch.write_ini(
        f"{host.name}.ini",
        str(make_url(url).set(host=host.gateway, port=database)),
        f"redis://{host.gateway}:{broker}/0",
    )
    return branch


def test_hosts_are_cut_off(shop, url, hosts, report) -> None:
    """While one host is cut off, the other one works; nothing is lost."""
    seconds = max(6.0, 60 * FRACTION)
    ended = slowest = 0.0
    with ExitStack() as stack:
        branches = [open_branch(shop, host, stack, url) for host in hosts]
        for branch in branches:
            stack.enter_context(branch.pserve())
        relays = [stack.enter_context(branch.relay()) for branch in branches]
        loads = [Load(each, 2, n * 10**6) for n, each in enumerate(branches)]
        with loads[0], loads[1]:
            for number, host in enumerate(hosts):
                time.sleep(1)
                other = loads[1 - number]
                other.forget_slowest()
                host.cut()
                end = time.monotonic() + seconds
                time.sleep(1)
                if number == 0:
                    # The database hears nothing from the relay, which cannot end well.
                    ended = stop_timed(relays[0], statuses=(0, 1))
                time.sleep(max(0, end - time.monotonic()))
                slowest = max(slowest, other.slowest)
                host.heal()
                if number == 0:
                    relays[0] = stack.enter_context(branches[0].relay())
                # The host is back when an answer arrives.
                before = loads[number].promised()
                wait_until(lambda n=number, b=before: loads[n].promised() > b, PATIENCE)
        shop.wait_until_sent(*relays)
        assert all(relay.popen.poll() is None for relay in relays)
    found = shop.outcome() | {"set_aside": shop.set_aside()}
    report(
        requests=sum(len(load.answers) for load in loads),
        each_cut_off_for=f"{seconds:g} s",
        statuses=[load.statuses for load in loads],
        slowest_on_the_other=f"{slowest:.2f} s",
        relay_ended_in=f"{ended:.1f} s",
        **found,
    )
    for load in loads:
        assert load.promised() <= set(shop.orders())
    assert found["lost"] == found["set_aside"] == 0
    assert ended < END_LIMIT
    assert slowest < LIMIT
