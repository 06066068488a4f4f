// The control socket: every request, every refusal and every kind of bad client, in both dialects.

import { describe, expect, setDefaultTimeout, test } from "bun:test";

import type { Info } from "../../src/protocol/info.ts";
import { type Daemon, withDaemon } from "../support/daemon.ts";
import { DEFAULT_SETTINGS } from "../support/settings.ts";
import { type Control, DIALECTS, encode, frame, until, type Wire } from "../support/wire.ts";

setDefaultTimeout(60_000);

const STRANGER = "11111111-2222-4333-8444-555555555555";

describe.each(DIALECTS)("In the %s dialect", (dialect) => {
  test("every request is answered as the protocol says (P-11)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const id = crypto.randomUUID();
      const path = daemon.program("stubborn.sh");
      control.send("Version");
      expect(await control.answerText()).toBe('{"Ok":"0.1.0"}');
      control.send({ Add: { id, path, privileged: true } });
      expect(await control.answerText()).toBe('{"Ok":null}');
      expect(await control.ask("Info")).toMatchObject({
        Ok: { runtimes: { [id]: { running: false, binary: path, privileged: true } }, links: {} },
      });
      expect(await control.ask({ Link: { type_name: "a::T", to: id } })).toEqual({ Ok: null });
      expect(await control.ask({ Link: { type_name: "a::T", to: id, from: id } })).toEqual({
        Ok: null,
      });
      expect(await control.ask({ Start: { id, priority: "low" } })).toEqual({ Ok: null });
      expect(await control.ask("Info")).toMatchObject({
        Ok: { runtimes: { [id]: { running: true } }, links: { "a::T": [id] } },
      });
      expect(await control.ask({ Unlink: { type_name: "a::T", to: id } })).toEqual({ Ok: null });
      expect(await control.ask({ Unlink: { type_name: "a::T", to: id, from: id } })).toEqual({
        Ok: null,
      });
      process.kill((await daemon.runtime(id)).pid as number, "SIGKILL");
      await daemon.ended(id);
      expect(await control.ask({ Remove: id })).toEqual({ Ok: null });
      expect(await control.ask("Clear")).toEqual({ Ok: null });
      expect(await control.ask("Info")).toMatchObject({ Ok: { runtimes: {}, links: {} } });
    }));

  test("Info says all there is to know about instances and links (P-20)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const puppet = await daemon.puppet({ privileged: true });
      await puppet.speak("native");
      await daemon.link("a::T", puppet.id, puppet.id);
      const { runtimes, links, routes, ...rest } = (await control.ok("Info")) as Info;
      expect(runtimes).toEqual({
        [puppet.id]: {
          running: true,
          binary: expect.stringContaining(daemon.folder),
          privileged: true,
          name: expect.stringMatching(/^program-\d+$/),
          state: "running",
          reason: null,
          pid: puppet.pid,
          started: expect.any(Number),
          due: null,
          restarts: 0,
          ...DEFAULT_SETTINGS,
          hash: null,
          connected: true,
          dialect: "native",
          held: false,
          exit: null,
          exit_by_stop: false,
          messages: { received: 0, unlinked: 0, refused: 0 },
        },
      });
      expect(links).toEqual({ "a::T": [puppet.id] });
      expect(routes).toHaveLength(1);
      expect(routes[0]).toMatchObject({
        type_name: "a::T",
        from: puppet.id,
        to: puppet.id,
        routed: 0,
        delivered: 0,
        queued: 0,
        dropped: {},
      });
      const peers = { received: 0, unlinked: 0, refused: 0, strangers: 0 };
      const { version, time, state, ...others } = rest;
      expect(state).toEndWith("/state.db");
      expect(others).toEqual({ telemetry: null, peers, lost_state: null, pid: daemon.pid });
      expect(version).toMatch(/^\d+\.\d+\.\d+$/);
      expect(Math.abs(time - Date.now())).toBeLessThan(60_000);
    }));

  test("an id may be written in any usual way, and is printed in one (P-12)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const id = crypto.randomUUID();
      const forms = [id.toUpperCase(), id.replaceAll("-", ""), `{${id}}`, `urn:uuid:${id}`];
      for (const form of forms) {
        await control.ok({ Add: { id: form, path: "/x" } });
        expect(Object.keys((await daemon.info()).runtimes)).toEqual([id]);
        await control.ok({ Link: { type_name: "T", to: form, from: form } });
        expect((await daemon.info()).links).toEqual({ T: [id] });
        await control.ok({ Remove: form });
      }
    }));

  test("older clients may leave out what came later (P-11)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const id = crypto.randomUUID();
      const path = daemon.program("crasher.sh", "code", 0);
      expect(await control.ask({ Add: { id, path } })).toEqual({ Ok: null });
      expect((await daemon.runtime(id)).privileged).toBe(false);
      for (const start of [id, { id }, { id, priority: null }, id.toUpperCase()]) {
        expect(await control.ask({ Start: start })).toEqual({ Ok: null });
        await daemon.ended(id);
      }
      expect(await control.ask({ Stdout: id })).toEqual({ Ok: null });
    }));

  test("requests that come at once are answered in their order (P-5)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const ids = Array.from({ length: 100 }, () => crypto.randomUUID());
      const requests = ids.flatMap((id) => [
        "Version",
        { Add: { id, path: "/x" } },
        { Add: { id, path: "/x" } },
        { Remove: id },
      ]);
      control.wire.send(Buffer.concat(requests.map((request) => encode(dialect, request))));
      for (const _ of ids) {
        expect(await control.answer()).toEqual({ Ok: "0.1.0" });
        expect(await control.answer()).toEqual({ Ok: null });
        expect(Object.keys(await control.answer())).toContain("Err");
        expect(await control.answer()).toEqual({ Ok: null });
      }
    }));

  test("a request that arrives byte by byte is answered (P-4)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      for (const byte of encode(dialect, "Version")) {
        control.wire.send(Uint8Array.of(byte));
        await Bun.sleep(1);
      }
      expect(await control.answer()).toEqual({ Ok: "0.1.0" });
    }));

  test("a client that ends its side right after its requests still gets the answers (P-10)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const control = await daemon.control(dialect);
      control.send("Version");
      control.send({ Stop: puppet.id });
      control.send({ Remove: puppet.id });
      control.wire.finish();
      expect(await control.answer()).toEqual({ Ok: "0.1.0" });
      expect(await control.answer()).toEqual({ Ok: null });
      expect(await control.answer()).toEqual({ Ok: null });
      expect(await control.wire.rest()).toHaveLength(0);
    }));

  test("a client that goes away with a request in work changes nothing about the work", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const control = await daemon.control(dialect);
      control.send({ Stop: puppet.id });
      control.wire.close();
      await daemon.ended(puppet.id);
    }));

  test("every refusal says what could not be done and why (P-6, P-13)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const idle = await daemon.add("/nowhere/program");
      const puppet = await daemon.puppet();
      const refusals: [request: unknown, code: string, ...chain: string[]][] = [
        [
          { Add: { id: idle, path: "/x" } },
          "already_exists",
          `Cannot add instance "${idle}": an instance with this id is registered already`,
        ],
        [
          { Start: { id: STRANGER, priority: null } },
          "not_found",
          `Cannot start instance "${STRANGER}": no instance with the id ${STRANGER}`,
        ],
        [
          { Start: { id: idle, priority: null } },
          "cannot_run",
          `Cannot start instance "${idle}": Cannot run "/nowhere/program"`,
          "no such file or directory",
        ],
        [
          { Start: { id: puppet.id, priority: null } },
          "wrong_state",
          `Cannot start instance "${puppet.id}": already running (pid ${puppet.pid})`,
        ],
        [
          { Start: { id: idle, priority: "urgent" } },
          "bad_request",
          'Cannot parse request: Start.priority is unknown: "urgent"; it is high, normal or low',
        ],
        [
          { Stop: STRANGER },
          "not_found",
          `Cannot stop instance "${STRANGER}": no instance with the id ${STRANGER}`,
        ],
        [{ Stop: idle }, "wrong_state", `Cannot stop instance "${idle}": it is not running`],
        [
          { Remove: STRANGER },
          "not_found",
          `Cannot remove instance "${STRANGER}": no instance with the id ${STRANGER}`,
        ],
        [
          { Remove: puppet.id },
          "wrong_state",
          `Cannot remove instance "${puppet.id}": it is running (pid ${puppet.pid}); stop it first`,
        ],
        [
          { Stdout: STRANGER },
          "not_found",
          `Cannot follow the output of instance "${STRANGER}": no instance with the id ${STRANGER}`,
        ],
        [
          { Link: { type_name: "T", to: STRANGER } },
          "not_found",
          `Cannot link "T" to ${STRANGER}: no instance with the id ${STRANGER}`,
        ],
        [
          { Link: { type_name: "T", to: idle, from: STRANGER } },
          "not_found",
          `Cannot link "T" to ${idle}: no instance with the id ${STRANGER}`,
        ],
        [
          { Link: { type_name: "T", to: "127.0.0.1:2661" } },
          "not_configured",
          'Cannot link "T" to 127.0.0.1:2661: this orchestrator was started without --ipc-socket',
        ],
        [
          { Unlink: { type_name: "T", to: idle } },
          "not_found",
          `Cannot unlink "T" to ${idle}: there is no such link`,
        ],
      ];
      for (const [request, code, ...Err] of refusals) {
        const expected = dialect === "native" ? { Err, code } : { Err };
        expect(await control.ask(request)).toEqual(expected);
      }
      expect(await control.ask("Version")).toEqual({ Ok: "0.1.0" });
    }));

  test("a request that makes no sense is refused and the next one answered (P-7, P-9)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      await control.ok("Version");
      const id = STRANGER;
      const requests: [text: string | Buffer, reason: RegExp][] = [
        ["", /not valid JSON/],
        ["nonsense", /not valid JSON/],
        ['{"Add":{"id":"', /not valid JSON/],
        ["[]", /neither a string nor an object/],
        ["17", /neither a string nor an object/],
        ["{}", /exactly one key is needed, this one has 0/],
        [`{"Stop":"${id}","Start":"${id}"}`, /exactly one key is needed, this one has 2/],
        ['"Reboot"', /unknown request "Reboot"/],
        ['{"__proto__":null}', /unknown request "__proto__"/],
        ['{"Version":1}', /Version takes no fields/],
        ['{"Stop":"not-an-id"}', /Stop is not a UUID: "not-an-id"/],
        ['{"Stop":17}', /Stop is not a string/],
        ['{"Add":null}', /Add takes an object/],
        [`{"Add":{"id":"${id}"}}`, /Add\.path is missing/],
        [`{"Add":{"id":"${id}","path":""}}`, /Add\.path is empty/],
        [`{"Add":{"id":"${id}","path":"a\\u0000b"}}`, /NUL/],
        [`{"Add":{"id":"${id}","path":"/x","privileged":"yes"}}`, /privileged is neither true nor/],
        [`{"Link":{"type_name":"","to":"${id}"}}`, /type_name cannot be used: it is empty/],
        [`{"Link":{"type_name":"T","to":"localhost:1"}}`, /neither an instance id nor IP:PORT/],
        [`{"Link":{"type_name":"\\ud800","to":"${id}"}}`, /unpaired surrogate/],
        [Buffer.from('"\xff\xfe"', "latin1"), /not valid UTF-8/],
        [`${"[".repeat(100)}${"]".repeat(100)}`, /nested deeper than 64 levels/],
        [`{"Add":${'{"a":'.repeat(50_000)}1${"}".repeat(50_001)}`, /nested deeper than 64/],
      ];
      for (const [text, reason] of requests) {
        const body = Buffer.from(text as Buffer);
        const newline = Buffer.from("\n");
        control.wire.send(dialect === "native" ? frame(body) : Buffer.concat([body, newline]));
        const { Err, code } = await control.answer();
        expect(Err?.[0]).toStartWith("Cannot parse request: ");
        expect(Err?.[0]).toMatch(reason);
        expect(Err?.[0]?.length).toBeLessThan(300);
        expect(code).toBe(dialect === "native" ? "bad_request" : undefined);
        expect(await control.ask("Version")).toEqual({ Ok: "0.1.0" });
      }
    }));

  test("a client that goes away within a request or a stream leaves nothing", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add("/bin/sleep");
      const request = encode(dialect, { Add: { id: STRANGER, path: "/x" } });
      for (let cut = 1; cut < request.length; cut += 7) {
        const wire = await daemon.connect();
        wire.send(request.subarray(0, cut));
        await wire.sent();
        wire.close();
      }
      const follower = await daemon.control(dialect);
      await follower.ok({ Stdout: id });
      follower.wire.close();
      const halfClosed = await daemon.control(dialect);
      halfClosed.send({ Stdout: id });
      halfClosed.wire.finish();
      expect(await halfClosed.answer()).toEqual({ Ok: null });
      halfClosed.wire.close();
      expect((await daemon.info()).runtimes).not.toHaveProperty(STRANGER);
    }));

  test("a request beyond 1 MiB is refused, and only its connection ends (P-8)", () =>
    withDaemon(async (daemon) => {
      const other = await daemon.control(dialect);
      await other.ok("Version");
      const control = await daemon.control(dialect);
      await control.ok("Version");
      control.wire.send(
        dialect === "native"
          ? Buffer.from([0x00, 0x10, 0x00, 0x01])
          : Buffer.alloc(2 ** 20 + 3, "x"),
      );
      const { Err, code } = await control.answer();
      expect(Err).toEqual([
        dialect === "native"
          ? "Cannot read frame: its size is 1048577 bytes, more than 1048576"
          : "Cannot read line: it is longer than 1048576 bytes",
      ]);
      expect(code).toBe(dialect === "native" ? "limit_exceeded" : undefined);
      expect(await control.wire.rest()).toHaveLength(0);
      expect(await other.ok("Version")).toBe("0.1.0");
    }));

  test("a request of 1 MiB is read", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const text = `"${"x".repeat(2 ** 20 - 2)}"`;
      control.wire.send(dialect === "native" ? frame(text) : `${text}\n`);
      expect((await control.answer()).Err?.[0]).toStartWith(
        "Cannot parse request: unknown request",
      );
      expect(await control.ok("Version")).toBe("0.1.0");
    }));

  test("answers that nobody reads do not disturb another client", () =>
    withDaemon(async (daemon) => {
      for (let i = 0; i < 200; i++) await daemon.add(`/${"long".repeat(50)}/${i}`);
      const memory = daemon.memory();
      const silent = await daemon.control(dialect);
      silent.wire.pause();
      const count = 1_000; // of 75 kB each
      for (let i = 0; i < count; i++) silent.send("Info");
      const other = await daemon.control(dialect);
      for (let i = 0; i < 50; i++) expect(await other.ok("Version")).toBe("0.1.0");
      expect(daemon.memory() - memory).toBeLessThan(48 * 2 ** 20);
      silent.wire.resume();
      for (let i = 0; i < count; i++) expect(await silent.answerText()).toStartWith('{"Ok":');
    }));
});

/** What a daemon says to bytes before it ends the connection. */
async function said(daemon: Daemon, bytes: string | Buffer): Promise<string> {
  const wire: Wire = await daemon.connect();
  wire.send(bytes);
  return (await wire.rest()).toString();
}

describe("Whatever the dialect", () => {
  test("a connection that begins like neither dialect is closed (P-1)", () =>
    withDaemon(async (daemon) => {
      const other = await daemon.control();
      await other.ok("Version");
      const post = `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"Version"\n`;
      for (const bytes of [post, "\n", " ", "[1]\n", Buffer.from([0xff, 0xff, 0xff, 0xff, 0x22])]) {
        expect(await said(daemon, bytes)).toBe("");
      }
      expect(await other.ok("Version")).toBe("0.1.0");
    }));

  test("a frame of size 0 is refused, one of 4 GiB ends its connection (P-8)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control("native");
      control.wire.send(Buffer.alloc(4));
      expect((await control.answer()).code).toBe("bad_request");
      expect(await control.ok("Version")).toBe("0.1.0");
      control.wire.send(Buffer.from([0xff, 0xff, 0xff, 0xff]));
      expect(await control.answer()).toEqual({
        Err: ["Cannot read frame: its size is 4294967295 bytes, more than 1048576"],
        code: "limit_exceeded",
      });
      expect(await control.wire.rest()).toHaveLength(0);
    }));

  test("the first byte decides the dialect for good (P-1)", () =>
    withDaemon(async (daemon) => {
      const veecle = await daemon.control("veecle");
      await veecle.ok("Version");
      veecle.wire.send(Buffer.concat([frame('"Version"'), Buffer.from("\n")]));
      expect((await veecle.answer()).Err).toHaveLength(1);
      expect(await veecle.ok("Version")).toBe("0.1.0");
      const native = await daemon.control("native");
      await native.ok("Version");
      native.wire.send('"Version"\n');
      expect((await native.answer()).code).toBe("limit_exceeded");
    }));

  test("lines may end in a carriage return and a newline (P-2)", () =>
    withDaemon(async (daemon) => {
      const wire = await daemon.connect();
      wire.send('"Version"\r\n"Version"\n');
      expect(await wire.line()).toBe('{"Ok":"0.1.0"}');
      expect(await wire.line()).toBe('{"Ok":"0.1.0"}');
    }));

  test("the last request may lack its newline; half of one is answered as what it is", () =>
    withDaemon(async (daemon) => {
      const whole = await daemon.connect();
      whole.send('"Version"\n"Version"');
      whole.finish();
      expect(await whole.line()).toBe('{"Ok":"0.1.0"}');
      expect(await whole.line()).toBe('{"Ok":"0.1.0"}');
      expect(await whole.rest()).toHaveLength(0);
      const half = await daemon.connect();
      half.send('{"Link":{"type_name":"T","to');
      half.finish();
      expect(JSON.parse(await half.line()).Err[0]).toStartWith("Cannot parse request");
      expect(await half.rest()).toHaveLength(0);
      const native = await daemon.connect();
      native.send(frame('"Version"').subarray(0, 8));
      native.finish();
      expect(await native.rest()).toHaveLength(0);
    }));

  test("an upload that ends early is not read as a request", () =>
    withDaemon(async (daemon) => {
      const wire = await daemon.connect();
      const id = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
      wire.send(
        `${JSON.stringify({ AddWithBinary: { id, length: 20, hash: new Array(32).fill(0) } })}\n"Clear"`,
      );
      wire.finish();
      expect(await wire.line()).toBe('{"Ok":null}');
      expect(JSON.parse(await wire.line()).Err[0]).toContain(
        "13 bytes before its announced length",
      );
      expect(await wire.rest()).toHaveLength(0);
    }));

  test("names from a request cannot forge a line of the log", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add("/x\n2025-01-01T00:00:00.000000Z ERROR forged: \u001b[31m");
      await daemon.logged(new RegExp(`Add\\(${id}`));
      expect(daemon.log).not.toContain("\n2025-01-01");
      expect(daemon.log).not.toContain("\u001b");
    }));

  test("256 connections are served, and one more is told so", () =>
    withDaemon(async (daemon) => {
      const controls: Control[] = [];
      for (let i = 0; i < 256; i++) controls.push(await daemon.control());
      await Promise.all(controls.map((control) => control.ok("Version")));
      const refused = await daemon.connect();
      expect(JSON.parse(await refused.line()).Err[0]).toStartWith(
        "Cannot accept connection: 256 are open, which is the limit",
      );
      await refused.rest();
      controls.pop()?.wire.close();
      await until("another connection is served", async () => {
        const control = await daemon.control("veecle");
        return "Ok" in (await control.ask("Version"));
      });
      controls.shift()?.wire.close(); // for the audit's own connection
    }));
});

test("A client that sends many requests at once holds up nobody else (R25)", () =>
  withDaemon(async (daemon) => {
    const [flood, other] = [await daemon.control("native"), await daemon.control("native")];
    const count = 3_000;
    const request = encode("native", "Version");
    flood.wire.send(Buffer.concat(Array.from({ length: count }, () => request)));
    await other.ok("Version");
    for (let i = 0; i < count; i++) expect(await flood.answer()).toEqual({ Ok: "0.1.0" });
    await until("all is logged", () => daemon.log.split("parsed=Version").length > count + 1);
    const before = daemon.log.slice(
      0,
      daemon.log.indexOf("connection.id=1 request.parsed=Version"),
    );
    expect(before.split("parsed=Version").length).toBeLessThan(count);
  }));
