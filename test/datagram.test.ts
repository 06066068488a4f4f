// Datagrams through the real door, where a host of a network does not answer.

import { describe, expect, test } from "bun:test";
import { join } from "node:path";

const door = join(import.meta.dir, "..", "src", "datagram.ts");

/** A network of two addresses, of which only ours is there; who is not is given up at once. */
const NETWORK = `
  ip link set lo up && ip link add here type veth peer name far &&
  ip addr add 10.217.94.1/30 dev here && ip link set here up && ip link set far up &&
  cd /proc/sys/net/ipv4/neigh/here && echo 20 > retrans_time_ms && echo 1 > mcast_solicit`;

/** Sends to who is not there, then to somebody else, without a turn of the event loop in between. */
const PROGRAM = `
  import { bindDatagram } from ${JSON.stringify(door)};
  const at = (host) => ({ kind: "tcp", host, port: 0 });
  const none = () => {};
  const reported = Promise.withResolvers();
  const there = await bindDatagram(at("127.0.0.1"), none, none, none);
  const here = await bindDatagram(at("0.0.0.0"), none, reported.resolve, none);
  const datagram = Buffer.from("{}");
  const results = new Set([here.send(datagram, "10.217.94.2", 5000)]);
  const end = performance.now() + 400;
  while (performance.now() < end) {
    results.add(here.send(datagram, "127.0.0.1", there.address.port));
  }
  await reported.promise;
  console.log(...results);
  process.exit();`;

function inNetwork(...cmd: string[]) {
  const inner = `${NETWORK} && exec "$@"`;
  return Bun.spawnSync(["unshare", "-rn", "sh", "-c", inner, "sh", ...cmd], { stderr: "ignore" });
}

const isAllowed = Bun.which("unshare") !== null && inNetwork("true").success;

/** Skipped without the program `ip`, or the right to make networks. */
describe.skipIf(!isAllowed)("DatagramSocket.send()", () => {
  test("loses nothing to one peer because the host of another does not answer (P-38)", () => {
    const { stdout } = inNetwork(process.execPath, "-e", PROGRAM);
    expect(stdout.toString()).toBe("sent\n");
  });
});
