import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { type Address, formatAddress } from "../src/address.ts";
import {
  ControlClient,
  type Deadlines,
  defaultControlAddress,
  stopDeadline,
} from "../src/client.ts";
import { errorCode, messageChain } from "../src/errors.ts";
import { encodeFrame } from "../src/frame.ts";
import { MAX_FOLLOWER_BYTES } from "../src/limits.ts";
import type { Request } from "../src/protocol.ts";
import { type FakeConnection, FakeDaemon } from "./support/fake-daemon.ts";
import { scratch } from "./support/scratch.ts";

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
const STOP: Request = { kind: "Stop", id: ID };
const VERSION: Request = { kind: "Version" };

function connect(daemon: FakeDaemon, deadlines?: Partial<Deadlines>): Promise<ControlClient> {
  return ControlClient.connect({ kind: "unix", path: daemon.path }, deadlines);
}

/** The code and the chain of what a promise is rejected with. */
async function failure(promise: Promise<unknown>): Promise<{ code: string; chain: string[] }> {
  try {
    await promise;
  } catch (error) {
    return { code: errorCode(error), chain: messageChain(error) };
  }
  throw new Error("it did not fail");
}

describe("ControlClient.connect()", () => {
  test("names the socket where nobody listens", async () => {
    const path = "/nonexistent/control.socket";
    expect(await failure(ControlClient.connect({ kind: "unix", path }))).toEqual({
      code: "unreachable",
      chain: [`Cannot reach the orchestrator at "${path}"`, "no such file or directory"],
    });
  });

  test("names the socket that a dead daemon left behind", async () => {
    using daemon = new FakeDaemon(() => {});
    const path = join(daemon.folder, "stale");
    writeFileSync(path, "");
    expect(await failure(ControlClient.connect({ kind: "unix", path }))).toEqual({
      code: "unreachable",
      chain: [`Cannot reach the orchestrator at "${path}"`, "connection refused"],
    });
  });

  test("has the system ask whether a daemon on another machine is still there", async () => {
    const daemon = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = daemon;
    const client = await ControlClient.connect({ kind: "tcp", host: "127.0.0.1", port });
    // proc(5), tcp: local and remote address, state, queues, the timer that runs; 02 is that.
    const to = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
    const rows = readFileSync("/proc/net/tcp", "utf8").split("\n");
    const row = rows.map((line) => line.trim().split(/\s+/)).find(([, , remote]) => remote === to);
    expect(row?.[5]).toStartWith("02:");
    client.close();
    daemon.stop(true);
  });

  test("names a host that does not exist", async () => {
    const address: Address = { kind: "tcp", host: "nowhere.invalid", port: 2661 };
    const { code, chain } = await failure(ControlClient.connect(address, { connectMs: 20_000 }));
    expect(code).toBe("unreachable");
    expect(chain).toEqual([
      'Cannot reach the orchestrator at "nowhere.invalid:2661"',
      "no such host",
    ]);
  });
});

describe("ControlClient.request()", () => {
  test("sends a frame and returns the value of the answer", async () => {
    using daemon = new FakeDaemon((_body, connection) => connection.ok("0.1.0"));
    const client = await connect(daemon);
    expect(await client.request(VERSION)).toBe("0.1.0");
    expect(await client.request(STOP)).toBe("0.1.0");
    expect(daemon.connections[0]?.bodies.map(String)).toEqual(['"Version"', `{"Stop":"${ID}"}`]);
    client.close();
  });

  test("several requests under way are answered in order", async () => {
    using daemon = new FakeDaemon((_body, connection) => connection.ok(connection.bodies.length));
    const client = await connect(daemon);
    const answers = Array.from({ length: 100 }, () => client.request(VERSION));
    expect(await Promise.all(answers)).toEqual(Array.from({ length: 100 }, (_, n) => n + 1));
    client.close();
  });

  test("an answer that arrives byte by byte is the same answer", async () => {
    using daemon = new FakeDaemon((_body, connection) => {
      for (const byte of encodeFrame('{"Ok":{"a":1}}')) connection.raw(Buffer.of(byte));
    });
    const client = await connect(daemon);
    expect(await client.request(VERSION)).toEqual({ a: 1 });
    client.close();
  });

  test("a refusal carries the daemon's code and its chain of causes", async () => {
    using daemon = new FakeDaemon((_body, connection) =>
      connection.refuse("cannot_run", "Cannot start", "Cannot run", "no such file"),
    );
    const client = await connect(daemon);
    expect(await failure(client.request(VERSION))).toEqual({
      code: "cannot_run",
      chain: ["Cannot start", "Cannot run", "no such file"],
    });
    client.close();
  });

  test("a code from the future, and a refusal without reasons, are still errors", async () => {
    using daemon = new FakeDaemon((body, connection) =>
      String(body) === '"Version"' ? connection.refuse("novel", "No") : connection.refuse("io"),
    );
    const client = await connect(daemon);
    expect(await failure(client.request(VERSION))).toEqual({ code: "internal", chain: ["No"] });
    expect((await failure(client.request(STOP))).chain).toEqual([
      "Cannot finish request: refused without a reason",
    ]);
    client.close();
  });

  test("a refusal before the first request, in one line, is told as it is", async () => {
    using daemon = new FakeDaemon((_body, connection) =>
      connection.raw(Buffer.from('{"Err":["Cannot serve: 256 connections are open"]}\n')),
    );
    const client = await connect(daemon);
    expect((await failure(client.request(VERSION))).chain).toEqual([
      "Cannot serve: 256 connections are open",
    ]);
  });

  test.each([
    ["HTTP", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")],
    ["a frame that is not JSON", encodeFrame("no")],
    ["a frame that is not a response", encodeFrame('{"Yes":1}')],
    ["two answers to one request", Buffer.concat([encodeFrame('{"Ok":1}'), encodeFrame("x")])],
  ])("%s ends the connection with an error", async (name, bytes) => {
    using daemon = new FakeDaemon((_body, connection) => connection.raw(bytes));
    const client = await connect(daemon);
    const answers = Promise.all([client.request(VERSION), client.request(VERSION)]);
    const { code, chain } = await failure(answers);
    expect([name, code, chain[0]]).toEqual([
      name,
      "io",
      `Cannot understand who answers at ${JSON.stringify(daemon.path)}`,
    ]);
    await daemon.closed;
  });

  test("a daemon that hangs up at any byte of its answer is an error at once (R30)", async () => {
    const answer = encodeFrame('{"Ok":"0.1.0"}');
    for (let cut = 0; cut < answer.length; cut++) {
      using daemon = new FakeDaemon((_body, connection) => {
        connection.raw(answer.subarray(0, cut));
        connection.end();
      });
      const client = await connect(daemon);
      expect(await failure(client.request(VERSION))).toEqual({
        code: "unreachable",
        chain: [
          `Cannot reach the orchestrator at ${JSON.stringify(daemon.path)}`,
          "the connection was closed",
        ],
      });
      expect((await failure(client.request(VERSION))).code).toBe("unreachable");
    }
  });

  test("a daemon that hangs is reported after the deadline (R30)", async () => {
    using daemon = new FakeDaemon(() => {});
    const client = await connect(daemon, { answerMs: 40 });
    const start = performance.now();
    expect(await failure(client.request(VERSION))).toEqual({
      code: "timed_out",
      chain: [
        `Cannot reach the orchestrator at ${JSON.stringify(daemon.path)}`,
        "no answer within 0.04 s",
      ],
    });
    expect(performance.now() - start).toBeGreaterThanOrEqual(35);
    await daemon.closed;
  });

  test("an answer that came while the client itself was held up is not missed (R30)", async () => {
    using daemon = new FakeDaemon((_body, connection) => {
      connection.ok("0.1.0");
      Bun.sleepSync(100);
    });
    const client = await connect(daemon, { answerMs: 40 });
    for (let i = 0; i < 5; i++) expect(await client.request(VERSION)).toBe("0.1.0");
    client.close();
  });

  test("a stop may take longer than an answer, as long as the daemon answers others", async () => {
    let probes = 0;
    using daemon = new FakeDaemon((body, connection) => {
      if (String(body) !== '"Version"') return;
      connection.ok("0.1.0");
      if (++probes === 3) daemon.connections[0]?.ok(null);
    });
    const client = await connect(daemon, { answerMs: 500, stopMs: 100_000 });
    expect(await client.request(STOP)).toBeNull();
    expect(probes).toBe(3);
    client.close();
  });

  test("a daemon that hangs during a stop is reported as early as any other (R30)", async () => {
    using daemon = new FakeDaemon(() => {});
    const client = await connect(daemon, { answerMs: 40, stopMs: 100_000 });
    expect((await failure(client.request(STOP))).code).toBe("timed_out");
  });

  test("a stop that is never done ends at its own deadline", async () => {
    using daemon = new FakeDaemon((body, connection) => {
      if (String(body) === '"Version"') connection.ok("0.1.0");
    });
    const client = await connect(daemon, { answerMs: 1000, stopMs: 1100 });
    expect((await failure(client.request(STOP))).chain[1]).toBe("no answer within 1.1 s");
  });

  test("close() ends what is outstanding", async () => {
    using daemon = new FakeDaemon(() => {});
    const client = await connect(daemon);
    const answer = failure(client.request(VERSION));
    client.close();
    expect((await answer).chain).toEqual(["Cannot finish request: connection closed"]);
    await daemon.closed;
  });
});

describe("ControlClient.upload()", () => {
  /** A daemon whose `answer` sees everything but the question for its version. */
  function uploadDaemon(answer: (body: Buffer, connection: FakeConnection) => void): FakeDaemon {
    return new FakeDaemon((body, connection) => {
      if (String(body) !== '"Version"') return answer(body, connection);
      connection.bodies.pop();
      connection.ok("0.1.0");
    });
  }

  /** Collects an upload; answers the second time when all of it is there. */
  function collector(connection: FakeConnection): void {
    const [first, ...pieces] = connection.bodies;
    const announced = JSON.parse(String(first)).AddWithBinary.length as number;
    if (pieces.length === 0) connection.ok(null);
    if (pieces.reduce((sum, piece) => sum + piece.length, 0) === announced) connection.ok(null);
  }

  test.each([0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_001])(
    "sends %d bytes in frames after announcing size and hash",
    async (size) => {
      using daemon = uploadDaemon((_body, connection) => collector(connection));
      const content = Buffer.alloc(size, "0123456789abcdef-");
      const path = join(daemon.folder, "program");
      writeFileSync(path, content);
      const client = await connect(daemon);
      const progress: number[] = [];
      const total = await client.upload(ID, path, { privileged: true }, (sent) =>
        progress.push(sent),
      );
      expect(total).toBe(size);
      const [announcement, ...pieces] = daemon.connections[0]?.bodies ?? [];
      expect(JSON.parse(String(announcement))).toEqual({
        AddWithBinary: {
          id: ID,
          length: size,
          hash: [...new Bun.CryptoHasher("sha256").update(content).digest()],
          path,
          privileged: true,
        },
      });
      expect(Buffer.concat(pieces).equals(content)).toBe(true);
      expect(Math.max(0, ...pieces.map((piece) => piece.length))).toBeLessThanOrEqual(256 * 1024);
      expect(progress).toEqual(progress.toSorted((a, b) => a - b));
      expect(progress.at(-1) ?? 0).toBe(size);
      expect(await client.request(VERSION)).toBe("0.1.0");
      client.close();
    },
  );

  test("takes a Blob", async () => {
    using daemon = uploadDaemon((_body, connection) => collector(connection));
    const client = await connect(daemon);
    expect(await client.upload(ID, new Blob(["abc"]), {})).toBe(3);
    client.close();
  });

  test("reads no further than the daemon takes", async () => {
    using daemon = uploadDaemon((_body, connection) => {
      if (connection.bodies.length === 1) connection.socket.pause();
      collector(connection);
    });
    const path = join(daemon.folder, "program");
    writeFileSync(path, Buffer.alloc(32 * 1024 * 1024));
    const client = await connect(daemon);
    let sent = 0;
    const upload = client.upload(ID, path, {}, (bytes) => (sent = bytes));
    await Bun.sleep(100); // whatever happens in that time, it must not be much
    expect(sent).toBeLessThan(4 * 1024 * 1024);
    daemon.connections[0]?.socket.resume();
    expect(await upload).toBe(32 * 1024 * 1024);
    client.close();
  });

  test("ends as soon as the daemon refuses, even if it reads no further", async () => {
    using daemon = uploadDaemon((_body, connection) => {
      if (connection.bodies.length === 1) return connection.ok(null);
      connection.refuse("upload_failed", "Cannot store upload", "no space left on device");
      connection.socket.pause();
    });
    const path = join(daemon.folder, "program");
    writeFileSync(path, Buffer.alloc(32 * 1024 * 1024));
    const client = await connect(daemon);
    expect(await failure(client.upload(ID, path, {}))).toEqual({
      code: "upload_failed",
      chain: ["Cannot store upload", "no space left on device"],
    });
    expect((await failure(client.request(VERSION))).code).toBe("unreachable");
  });

  test("ends when nothing moves any more (R30)", async () => {
    using daemon = uploadDaemon((_body, connection) => {
      if (connection.bodies.length === 1) connection.ok(null);
      else connection.socket.pause();
    });
    const path = join(daemon.folder, "program");
    writeFileSync(path, Buffer.alloc(8 * 1024 * 1024));
    const client = await connect(daemon, { uploadIdleMs: 50 });
    expect((await failure(client.upload(ID, path, {}))).code).toBe("timed_out");
  });

  test("a refusal of the announcement sends nothing, and the connection stays", async () => {
    using daemon = uploadDaemon((_body, connection) =>
      connection.refuse("already_exists", "Cannot add instance"),
    );
    const client = await connect(daemon);
    const upload = client.upload(ID, new Blob(["abc"]), {});
    expect((await failure(upload)).code).toBe("already_exists");
    expect(await client.request(VERSION)).toBe("0.1.0");
    client.close();
  });

  test("a file that shrinks meanwhile is an error, not a wait", async () => {
    using daemon = uploadDaemon((_body, connection) => {
      if (connection.bodies.length > 1) return;
      truncateSync(join(daemon.folder, "program"), 10);
      connection.ok(null);
    });
    const path = join(daemon.folder, "program");
    writeFileSync(path, Buffer.alloc(1_000_000));
    const client = await connect(daemon);
    expect(await failure(client.upload(ID, path, {}))).toEqual({
      code: "upload_failed",
      chain: [`Cannot upload ${JSON.stringify(path)}: it changed while it was sent`],
    });
    await daemon.closed;
  });

  test("a missing file and a folder are errors before anything is sent", async () => {
    using daemon = uploadDaemon(() => {});
    const client = await connect(daemon);
    const missing = join(daemon.folder, "missing");
    expect(await failure(client.upload(ID, missing, {}))).toEqual({
      code: "io",
      chain: [`Cannot read ${JSON.stringify(missing)}`, "no such file or directory"],
    });
    const folder = join(daemon.folder, "folder");
    mkdirSync(folder);
    expect((await failure(client.upload(ID, folder, {}))).chain).toEqual([
      `Cannot read ${JSON.stringify(folder)}`,
      "it is not a regular file",
    ]);
    expect(statSync(folder).isDirectory()).toBe(true);
    expect(daemon.connections[0]?.bodies ?? []).toEqual([]);
    client.close();
  });
});

describe("ControlClient.follow()", () => {
  async function lines(source: AsyncIterable<Uint8Array>): Promise<string[]> {
    const all: string[] = [];
    for await (const line of source) all.push(Buffer.from(line).toString());
    return all;
  }

  test("hands out lines until the daemon ends the stream", async () => {
    using daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      for (const line of ["one", "", "three \xe4"]) connection.frame(line);
      connection.end();
    });
    const client = await connect(daemon);
    const follow = client.follow(ID);
    await follow.ready;
    expect(await lines(follow)).toEqual(["one", "", "three \xe4"]);
    expect(String(daemon.connections[0]?.bodies[0])).toBe(`{"Stdout":"${ID}"}`);
  });

  test("a refusal appears in the loop and in `ready`", async () => {
    using daemon = new FakeDaemon((_body, connection) => connection.refuse("not_found", "No"));
    const client = await connect(daemon);
    const follow = client.follow(ID);
    expect((await failure(follow.ready)).code).toBe("not_found");
    expect((await failure(lines(follow))).code).toBe("not_found");
  });

  test("a stream that breaks within a line is an error, after the lines before it", async () => {
    const bytes = Buffer.concat([encodeFrame("one"), encodeFrame("two")]);
    for (let cut = 8; cut < bytes.length; cut++) {
      using daemon = new FakeDaemon((_body, connection) => {
        connection.ok(null);
        connection.raw(bytes.subarray(0, cut));
        connection.end();
      });
      const client = await connect(daemon);
      const seen: string[] = [];
      const { code } = await failure(
        (async () => {
          for await (const line of client.follow(ID)) seen.push(String(line));
        })(),
      );
      expect([cut, code, seen.length]).toEqual([cut, "unreachable", 1]);
    }
  });

  test("takes no more than its bound while nobody reads, and loses nothing", async () => {
    const count = 16 * (MAX_FOLLOWER_BYTES / 65_536);
    let sent = 0;
    using daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      const line = Buffer.alloc(65_536);
      for (; sent < count; sent++) {
        line.writeUInt32BE(sent);
        connection.frame(line);
      }
      connection.end();
    });
    const client = await connect(daemon);
    const follow = client.follow(ID);
    await follow.ready;
    let seen = 0;
    for await (const batch of follow.batches()) {
      const bytes = batch.reduce((sum, line) => sum + line.length, 0);
      expect(bytes).toBeLessThanOrEqual(MAX_FOLLOWER_BYTES + 1024 * 1024);
      for (const line of batch) expect(Buffer.from(line).readUInt32BE()).toBe(seen++);
      await Bun.sleep(1); // let the connection run ahead, if it would
    }
    expect(seen).toBe(count);
  });

  test("leaving the loop ends the connection", async () => {
    using daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      connection.frame("one");
      connection.frame("two");
    });
    const client = await connect(daemon);
    for await (const line of client.follow(ID)) {
      expect(String(line)).toBe("one");
      break;
    }
    await daemon.closed;
  });
});

describe("ControlClient.events() and output()", () => {
  const EVENT = { seq: 1, time: 5, kind: "started", id: ID, name: "ping", detail: { pid: 7 } };
  const LINE = { id: ID, time: 5, stream: "stdout", line: "hello" };

  /** A daemon that answers a query with these items, and ends the connection. */
  const streaming = (...items: unknown[]): FakeDaemon =>
    new FakeDaemon((_body, connection) => {
      connection.ok(null);
      for (const item of items) connection.frame(JSON.stringify(item));
      connection.end();
    });

  test("send the query and hand out items", async () => {
    using daemon = streaming(EVENT, { ...EVENT, kind: "novel" });
    const events = (await connect(daemon)).events({ ids: [ID], last: 2, follow: true });
    expect(await Array.fromAsync(events)).toEqual([EVENT, { ...EVENT, kind: "novel" }] as never);
    expect(JSON.parse(String(daemon.connections[0]?.bodies[0]))).toEqual({
      Events: { ids: [ID], last: 2, follow: true },
    });
    using other = streaming(LINE, { ...LINE, stream: null });
    const output = (await connect(other)).output({ stream: "stdout", since: 3 });
    expect((await Array.fromAsync(output)).map(({ line }) => line)).toEqual(["hello", "hello"]);
    expect(JSON.parse(String(other.connections[0]?.bodies[0]))).toEqual({
      Output: { stream: "stdout", since: 3, follow: false },
    });
  });

  test.each([
    [{ ...EVENT, detail: null }],
    [{ ...EVENT, time: "5" }],
    [{ ...EVENT, kind: 3 }],
    ["started"],
    [null],
  ])("an item of another form ends the stream with an error: %j", async (item) => {
    using daemon = streaming(EVENT, item);
    const events = (await connect(daemon)).events();
    expect((await failure(Array.fromAsync(events))).code).toBe("io");
    await daemon.closed;
  });

  test("a daemon that knows no such request refuses", async () => {
    using daemon = new FakeDaemon((_body, connection) => connection.refuse("bad_request", "What?"));
    const events = (await connect(daemon)).events();
    expect((await failure(events.ready)).code).toBe("bad_request");
    expect((await failure(Array.fromAsync(events))).code).toBe("bad_request");
  });

  test("take no more than their bound while nobody reads, and lose nothing", async () => {
    const count = 8 * (MAX_FOLLOWER_BYTES / 65_536);
    using daemon = streaming(
      ...Array.from({ length: count }, (_, n) => ({ ...LINE, time: n, line: "x".repeat(65_536) })),
    );
    const output = (await connect(daemon)).output();
    let seen = 0;
    for await (const batch of output.batches()) {
      const bytes = batch.reduce((sum, { line }) => sum + line.length, 0);
      expect(bytes).toBeLessThanOrEqual(MAX_FOLLOWER_BYTES + 1024 * 1024);
      for (const { time } of batch) expect(time).toBe(seen++);
      await Bun.sleep(1); // let the connection run ahead, if it would
    }
    expect(seen).toBe(count);
  });
});

describe("stopDeadline()", () => {
  test("is beyond the grace and what follows it", () => {
    expect(stopDeadline(60_000)).toBe(70_000);
  });

  test("a stop may take as long as the grace that is known", async () => {
    using daemon = new FakeDaemon((body, connection) => {
      if (String(body) === '"Version"') connection.ok("0.1.0");
    });
    const client = await connect(daemon, { answerMs: 1000 });
    const start = performance.now();
    expect((await failure(client.request(STOP, 1100))).chain[1]).toBe("no answer within 1.1 s");
    expect(performance.now() - start).toBeGreaterThan(1000); // probes take nothing of it
  });
});

describe("defaultControlAddress()", () => {
  const uid = process.getuid?.() ?? 0;
  test.each([
    [{ XDG_RUNTIME_DIR: "/run/user/1000" }, "/run/user/1000/veecle-orchestrator.socket"],
    [{ XDG_RUNTIME_DIR: "/run/user/1000/" }, "/run/user/1000/veecle-orchestrator.socket"],
    [{ XDG_RUNTIME_DIR: "" }, `/tmp/veecle-orchestrator-${uid}/veecle-orchestrator.socket`],
    [{ XDG_RUNTIME_DIR: "run" }, `/tmp/veecle-orchestrator-${uid}/veecle-orchestrator.socket`],
    [{}, `/tmp/veecle-orchestrator-${uid}/veecle-orchestrator.socket`],
    [{ TMPDIR: "/var/tmp/" }, `/var/tmp/veecle-orchestrator-${uid}/veecle-orchestrator.socket`],
  ])("%j leads to %s", (env, path) => {
    expect(formatAddress(defaultControlAddress(env))).toBe(path);
  });

  test("a folder too long for a socket is refused", () => {
    expect(() => defaultControlAddress({ XDG_RUNTIME_DIR: `/${"x".repeat(100)}` })).toThrow(
      "the system allows 107",
    );
  });
});

describe("Whoever is silent", () => {
  /** Reads lines and answers each; whatever is no whole line waits. */
  function linesOnlyDaemon(path: string): Bun.UnixSocketListener<string> {
    return Bun.listen<string>({
      unix: path,
      socket: {
        open: (socket) => void (socket.data = ""),
        data(socket, chunk) {
          socket.data += chunk.toString("latin1");
          if (socket.data.endsWith("\n")) socket.write('{"Ok":"0.1.0"}\n');
        },
      },
    });
  }

  test.each<Request>([VERSION, STOP, { kind: "Clear" }])(
    "and answers lines is the existing orchestrator, which is told within a second (%j)",
    async (request) => {
      using daemon = new FakeDaemon(() => {}); // for its folder
      const path = join(daemon.folder, "lines");
      const listener = linesOnlyDaemon(path);
      const startMs = performance.now();
      const client = await ControlClient.connect({ kind: "unix", path });
      expect(await failure(client.request(request))).toEqual({
        code: "io",
        chain: [
          `Cannot talk to the orchestrator at "${path}"`,
          "it is the existing Veecle OS orchestrator, which does not know this program's protocol",
        ],
      });
      expect(performance.now() - startMs).toBeLessThan(1_000);
      listener.stop(true);
    },
  );

  test("and answers others meanwhile in our protocol is only slow", async () => {
    const path = join(scratch("slow-"), "socket");
    const answer = encodeFrame('{"Ok":"0.1.0"}');
    let connections = 0;
    const listener = Bun.listen<boolean>({
      unix: path,
      socket: {
        open: (socket) => void (socket.data = ++connections === 1),
        data(socket, chunk) {
          const reply = (): void => void socket.write(chunk[0] === 0 ? answer : '{"Ok":"0.1.0"}\n');
          if (socket.data) setTimeout(reply, 900);
          else reply();
        },
      },
    });
    const client = await ControlClient.connect({ kind: "unix", path });
    expect(await client.request(VERSION)).toBe("0.1.0");
    expect(connections).toBe(3);
    client.close();
    listener.stop(true);
    rmSync(dirname(path), { recursive: true });
  });
});
