// Messages between orchestrators: datagrams, byte for byte, in both directions, and bad neighbours.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { networkInterfaces } from "node:os";

import { routeTo } from "../fixtures/accounts.ts";
import { withDaemon } from "../support/daemon.ts";
import { DIALECTS, KIND, message, native, nextMessage, storable, until } from "../support/wire.ts";

setDefaultTimeout(60_000);

const IPC = { args: ["--ipc-socket", "127.0.0.1:0"] };

/** A plain UDP socket: another orchestrator, as far as bytes go. */
class Peer {
  readonly datagrams: string[] = [];
  readonly senders: string[] = [];
  readonly #socket: Bun.udp.Socket<"buffer">;

  private constructor(socket: Bun.udp.Socket<"buffer">) {
    this.#socket = socket;
  }

  static async open(hostname: string = "127.0.0.1"): Promise<Peer> {
    let peer: Peer | undefined;
    const socket = await Bun.udpSocket({
      hostname,
      socket: {
        data(_socket, bytes, port, host) {
          peer?.datagrams.push(bytes.toString());
          peer?.senders.push(`${host}:${port}`);
        },
        error() {},
      },
    });
    peer = new Peer(socket);
    return peer;
  }

  get address(): string {
    const { address, port } = this.#socket.address;
    return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
  }

  send(bytes: string | Uint8Array, to: string): void {
    const colon = to.lastIndexOf(":");
    const host = to.slice(0, colon).replace(/^\[|\]$/g, "");
    this.#socket.send(bytes, Number(to.slice(colon + 1)), host);
  }

  async next(): Promise<string> {
    return until("a datagram", () => this.datagrams.shift());
  }

  close(): void {
    this.#socket.close();
  }
}

/** Where nobody listens, and nobody else will take the port. */
async function deadAddress(): Promise<string> {
  const gone = await Peer.open("127.0.0.2");
  const { address } = gone;
  gone.close();
  return address;
}

async function withPeer(body: (peer: Peer) => Promise<void>, hostname?: string): Promise<void> {
  const peer = await Peer.open(hostname);
  try {
    await body(peer);
  } finally {
    peer.close();
  }
}

describe.each(DIALECTS)("From an instance of the %s dialect", (from) => {
  test.each(DIALECTS)("a message reaches an instance of the %s dialect elsewhere (P-41)", (to) =>
    withDaemon(
      (here) =>
        withDaemon(async (there) => {
          const [source, target] = [await here.puppet(), await there.puppet()];
          const [out, into] = [await source.connect(), await target.speak(to)];
          await here.link("a::Ping", await there.ipcAddress());
          await there.link("a::Ping", target.id);
          for (let i = 0; i < 500; i++) {
            out.send(message(from, "a::Ping", `{"value":${i}}`));
            const expected = { typeName: "a::Ping", payload: `{"value":${i}}` };
            expect(await nextMessage(to, into)).toEqual(expected);
          }
          expect((await routeTo(here, await there.ipcAddress())).delivered).toBe(500);
          expect((await routeTo(there, target.id)).delivered).toBe(500);
        }, IPC),
      IPC,
    ),
  );

  test("a datagram is the inner object of a line, byte for byte (P-41)", () =>
    withPeer((peer) =>
      withDaemon(async (daemon) => {
        const wire = await (await daemon.puppet()).connect();
        for (const type of ["a::b::Ping", 'with "quotes"']) await daemon.link(type, peer.address);
        wire.send(message(from, "a::b::Ping", '{"value":7}'));
        expect(await peer.next()).toBe('{"type_name":"a::b::Ping","value":"{\\"value\\":7}"}');
        wire.send(message(from, 'with "quotes"', "ü\n\u0001🦀\\"));
        expect(await peer.next()).toBe(
          '{"type_name":"with \\"quotes\\"","value":"ü\\n\\u0001🦀\\\\"}',
        );
        expect(peer.senders).toEqual([await daemon.ipcAddress(), await daemon.ipcAddress()]);
        expect((await daemon.info()).links).toEqual({
          "a::b::Ping": [peer.address],
          'with "quotes"': [peer.address],
        });
      }, IPC),
    ));

  test("a datagram of 2048 bytes goes out, a longer one is dropped and counted (P-41)", () =>
    withPeer((peer) =>
      withDaemon(async (daemon) => {
        const wire = await (await daemon.puppet()).connect();
        await daemon.link("T", peer.address);
        const fitting = "x".repeat(2_048 - '{"type_name":"T","value":""}'.length);
        wire.send(message(from, "T", `${fitting}x`));
        wire.send(message(from, "T", "x".repeat(500_000)));
        wire.send(message(from, "T", fitting));
        expect(await peer.next()).toHaveLength(2_048);
        expect(await routeTo(daemon, peer.address)).toMatchObject({
          delivered: 1,
          dropped: { oversize: 2 },
        });
      }, IPC),
    ));
});

describe("A datagram that arrives", () => {
  test("in any legal JSON form is routed, by links that name no source (P-42)", () =>
    withPeer((peer) =>
      withDaemon(async (daemon) => {
        const [v, n] = [await daemon.puppet(), await daemon.puppet()];
        const [veecle, frames] = [await v.speak("veecle"), await n.speak("native")];
        await daemon.link("a::T", v.id);
        await daemon.link("a::T", n.id);
        await daemon.link("of-v", n.id, v.id);
        const ipc = await daemon.ipcAddress();
        for (const text of [
          '{"type_name":"a::T","value":"{\\"value\\":7}"}',
          ' { "value" : "{\\u0022value\\u0022:7}" , "type_name" : "a:\\u003aT", "later" : [] } ',
          '{"type_name":"a::T","value":"{\\"value\\":7}"}\n',
        ]) {
          peer.send('{"type_name":"of-v","value":"1"}', ipc);
          peer.send(text, ipc);
          expect(await veecle.line()).toBe(
            '{"Storable":{"type_name":"a::T","value":"{\\"value\\":7}"}}',
          );
          expect(await nextMessage("native", frames)).toEqual({
            typeName: "a::T",
            payload: '{"value":7}',
          });
        }
        expect((await routeTo(daemon, v.id)).delivered).toBe(3);
        expect(veecle.unreadBytes + frames.unreadBytes).toBe(0);
      }, IPC),
    ));

  test("and makes no sense is ignored, and logged once a second at most (P-42)", () =>
    withPeer((peer) =>
      withDaemon(async (daemon) => {
        const target = await daemon.puppet();
        const wire = await target.connect();
        await daemon.link("T", target.id);
        const ipc = await daemon.ipcAddress();
        const begin = performance.now();
        const bad = [
          "",
          "nonsense",
          "[]",
          "null",
          "{}",
          '{"type_name":"T"}',
          '{"type_name":"T","value":7}',
          '{"type_name":"","value":"x"}',
          `{"type_name":"${"t".repeat(1_025)}","value":"x"}`,
          '{"type_name":"T","value":"\\ud800"}',
          '{"Storable":{"type_name":"T","value":"x"}}',
          `{"type_name":"T","value":${"[".repeat(500)}${"]".repeat(500)}}`,
          Buffer.from('{"type_name":"T","value":"\xff"}', "latin1"),
          Buffer.alloc(60_000, "x"),
        ];
        for (let i = 0; i < 10; i++) {
          for (const datagram of bad) peer.send(datagram, ipc);
          peer.send(`{"type_name":"T","value":"${i}"}`, ipc);
          expect(await wire.line()).toBe(`{"Storable":{"type_name":"T","value":"${i}"}}`);
        }
        expect(wire.unreadBytes).toBe(0);
        await daemon.loggedRarely(/refused a datagram/, begin);
      }, IPC),
    ));

  test("and is too long for a veecle instance is dropped and counted", () =>
    withPeer((peer) =>
      withDaemon(async (daemon) => {
        const target = await daemon.puppet();
        const wire = await target.speak("veecle");
        await daemon.link("T", target.id);
        const ipc = await daemon.ipcAddress();
        peer.send(`{"type_name":"T","value":"${"x".repeat(2_020)}"}`, ipc); // fits a datagram only
        peer.send('{"type_name":"T","value":"short"}', ipc);
        expect(JSON.parse(await wire.line()).Storable.value).toBe("short");
        expect((await routeTo(daemon, target.id)).dropped).toEqual({ oversize: 1 });
      }, IPC),
    ));
});

test("A link to another orchestrator needs --ipc-socket (P-13)", () =>
  withDaemon(async (daemon) => {
    for (const to of ["127.0.0.1:2661", "[::1]:2661"]) {
      expect(await daemon.ask({ Link: { type_name: "T", to } })).toEqual({
        Err: [`Cannot link "T" to ${to}: this orchestrator was started without --ipc-socket`],
        code: "not_configured",
      });
    }
    expect((await daemon.info()).links).toEqual({});
  }));

test("What is not UTF-8 cannot travel, and is counted", () =>
  withPeer((peer) =>
    withDaemon(async (daemon) => {
      const wire = await (await daemon.puppet()).connect();
      await daemon.link("T", peer.address);
      wire.send(native(KIND.data, "T", Buffer.from([0xff])));
      wire.send(native(KIND.data, "T", "fine"));
      expect(await peer.next()).toBe('{"type_name":"T","value":"fine"}');
      expect((await routeTo(daemon, peer.address)).dropped).toEqual({ not_utf8: 1 });
    }, IPC),
  ));

test("A dead neighbour costs a healthy one nothing", () =>
  withPeer((healthy) =>
    withDaemon(async (daemon) => {
      const dead = await deadAddress();
      const wire = await (await daemon.puppet()).connect();
      await daemon.link("T", dead);
      await daemon.link("T", healthy.address);
      await daemon.link("U", dead);
      for (let i = 0; i < 300; i++) {
        // An odd and an even number of datagrams that find nobody, before the one that does.
        wire.send((i % 2 === 0 ? storable("U", "x") : "") + storable("T", `${i}`));
        expect(await healthy.next()).toBe(`{"type_name":"T","value":"${i}"}`);
      }
      expect(await routeTo(daemon, healthy.address)).toMatchObject({
        delivered: 300,
        dropped: {},
      });
    }, IPC),
  ));

test("A link tells that nobody listens at its end, and what was heard from there", () =>
  withPeer((alive) =>
    withDaemon(async (daemon) => {
      const dead = await deadAddress();
      const wire = await (await daemon.puppet()).connect();
      await daemon.link("T", dead);
      await daemon.link("T", alive.address);
      const known = (to: string, what: "heard" | "refused" | "suspected"): Promise<number> =>
        until(what, async () => (await routeTo(daemon, to)).peer?.[what] ?? undefined);
      const never = { heard: null, refused: null, suspected: null };
      expect((await routeTo(daemon, dead)).peer).toEqual(never);
      wire.send(storable("T", "1"));
      // Either may be meant, as far as the system tells.
      for (const address of [dead, alive.address]) {
        await known(address, "suspected");
        const expected = { ...never, suspected: expect.any(Number) };
        expect((await routeTo(daemon, address)).peer).toEqual(expected);
      }
      alive.send("anything", await daemon.ipcAddress());
      await known(alive.address, "heard");
      wire.send(storable("T", "2"));
      await known(dead, "refused");
      const { delivered, peer } = await routeTo(daemon, alive.address);
      expect([delivered, peer?.refused]).toEqual([2, null]);
      expect(Math.abs((peer?.heard ?? 0) - Date.now())).toBeLessThan(60_000);
    }, IPC),
  ));

test("An address of another family is unreachable, and that is counted", () =>
  withPeer(
    (peer) =>
      withDaemon(async (daemon) => {
        const wire = await (await daemon.puppet()).connect();
        await daemon.link("T", peer.address);
        wire.send(storable("T", "x"));
        await until("it is routed", async () => (await daemon.info()).routes[0]?.routed === 1);
        expect((await routeTo(daemon, peer.address)).dropped).toEqual({ unreachable: 1 });
        expect(await daemon.ok("Version")).toBe("0.1.0");
      }, IPC),
    "::1",
  ));

test("Orchestrators may speak over IPv6", () =>
  withPeer(
    (peer) =>
      withDaemon(
        async (daemon) => {
          const target = await daemon.puppet();
          const wire = await target.connect();
          await daemon.link("out", peer.address);
          await daemon.link("in", target.id);
          wire.send(storable("out", "1"));
          expect(await peer.next()).toBe('{"type_name":"out","value":"1"}');
          peer.send('{"type_name":"in","value":"2"}', await daemon.ipcAddress());
          expect(JSON.parse(await wire.line()).Storable.value).toBe("2");
        },
        { args: ["--ipc-socket", "[::1]:0"] },
      ),
    "::1",
  ));

test("A link to an address of one interface reaches it there (P-12)", () =>
  withPeer(
    (peer) =>
      withDaemon(
        async (daemon) => {
          const to = peer.address.replace("]", "%1]"); // the interface "lo"
          const wire = await (await daemon.puppet()).connect();
          await daemon.link("T", to);
          wire.send(message("veecle", "T", "fine"));
          expect(await peer.next()).toBe('{"type_name":"T","value":"fine"}');
          expect((await daemon.info()).links).toEqual({ T: [to] });
        },
        { args: ["--ipc-socket", "[::1]:0"] },
      ),
    "::1",
  ));

test.each(["127.0.0.1:0", "[::]:0"])(
  "An address of IPv4 that is mapped to IPv6 is that one for a daemon on %s (P-12, P-42)",
  (ours) =>
    withPeer((peer) =>
      withDaemon(
        async (daemon) => {
          const ipc = await daemon.ipcAddress();
          const mapped = peer.address.replace("127.0.0.1", "[::ffff:127.0.0.1]");
          await daemon.link("T", mapped);
          expect((await daemon.info()).links["T"]).toEqual([mapped]);
          const own = `127.0.0.1:${ipc.slice(ipc.lastIndexOf(":") + 1)}`;
          const datagram = JSON.stringify({ type_name: "T", value: "1" });
          peer.send(datagram, own);
          await until("it came", async () => peer.datagrams.length > 0 || undefined);
          expect(peer.datagrams).toEqual([datagram]);
          expect((await routeTo(daemon, mapped)).peer?.heard).toBeGreaterThan(0);
        },
        { args: ["--ipc-socket", ours] },
      ),
    ),
);

/** An address that is of one interface only, with its number, if this machine has one. */
const [local] = Object.values(networkInterfaces())
  .flatMap((all = []) => all)
  .flatMap(({ address, scopeid = 0 }) => (scopeid === 0 ? [] : [`${address}%${scopeid}`]));

test.skipIf(local === undefined)("What an address of one interface sends is heard", () =>
  withPeer(
    (peer) =>
      withDaemon(
        async (daemon) => {
          const ipc = await daemon.ipcAddress();
          const port = peer.address.slice(peer.address.lastIndexOf(":") + 1);
          const to = `[${local}]:${port}`;
          await daemon.link("T", to);
          peer.send("anything", `[${local}]:${ipc.slice(ipc.lastIndexOf(":") + 1)}`);
          await until("heard", async () => (await routeTo(daemon, to)).peer?.heard ?? undefined);
        },
        { args: ["--ipc-socket", "[::]:0"] },
      ),
    local,
  ),
);
