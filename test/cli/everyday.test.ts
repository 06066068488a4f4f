import { describe, expect, test } from "bun:test";

import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { type FakeConnection, FakeDaemon } from "../support/fake-daemon.ts";
import { A, B, INFO, type Ran, run, type Setting, STOPPED } from "../support/typist.ts";

const COMMANDS = [
  "ps",
  "status ping",
  "logs ping",
  "logs -f",
  "events",
  "events -f",
  "start pong",
  "stop ping",
  "restart ping",
  "wait ping --for running",
];

/** What a daemon answers by the kind of a request; what is left out gets silence. */
type Answers = Readonly<Record<string, (connection: FakeConnection, body: unknown) => void>>;

function answering(answers: Answers): FakeDaemon {
  return new FakeDaemon((body, connection) => {
    const request: unknown = JSON.parse(String(body));
    const [kind, fields] =
      typeof request === "string"
        ? [request, undefined]
        : (Object.entries(request as object)[0] as [string, unknown]);
    answers[kind]?.(connection, fields);
  });
}

/** A stream of items; without `isOpen` it ends behind them. */
function stream(items: readonly unknown[], isOpen = false): (connection: FakeConnection) => void {
  return (connection) => {
    connection.ok(null);
    for (const item of items) connection.frame(JSON.stringify(item));
    if (!isOpen) connection.end();
  };
}

const known: Answers = {
  Info: (connection) => connection.ok(INFO),
  Version: (connection) => connection.ok("0.1.0"),
};
const unknown = (connection: FakeConnection): void =>
  connection.refuse("bad_request", "Cannot parse request", 'unknown request "Events"');

function event(kind: string, detail: object = {}, fields: object = {}): object {
  return { seq: 7, time: 0, kind, id: B, name: "pong", detail, ...fields };
}

/** Options of a command stand before what it is told about its daemon. */
function at(daemon: FakeDaemon, line: string, setting?: Setting): Promise<Ran> {
  return run([...line.split(" "), "--socket", daemon.path], setting);
}

describe("a daemon that", () => {
  test.each(COMMANDS)("hangs is reported with 6: %s (R30)", async (line) => {
    using silent = new FakeDaemon(() => {});
    const ran = await at(silent, line, { deadlines: { answerMs: 50 } });
    expect([ran.code, ran.out]).toEqual([6, ""]);
    expect(ran.err).toContain("caused by: no answer within 0.05 s\n");
    if (line === "ps") return;
    using later = answering({ Info: known["Info"] as never });
    const second = await at(later, line, { deadlines: { answerMs: 50 } });
    expect([second.code, second.out]).toEqual([6, ""]);
  });

  test.each(COMMANDS)("is not there is reported with 5: %s (R30)", async (line) => {
    const ran = await run([...line.split(" "), "--socket", "/nonexistent/socket"]);
    expect([ran.code, ran.out]).toEqual([5, ""]);
    expect(ran.err).toContain("start one with");
  });

  test.each(COMMANDS.filter((line) => line !== "ps"))(
    "answers with something else is reported with 1: %s",
    async (line) => {
      using daemon = new FakeDaemon((_body, connection) => connection.ok({ novel: true }));
      expect(await at(daemon, line)).toMatchObject({ code: 1, out: "" });
    },
  );

  test("knows no events says so, and is asked for nothing that it does not know", async () => {
    using daemon = answering({ ...known, Events: unknown, Output: unknown, Resources: unknown });
    const ran = await at(daemon, "start pong");
    expect([ran.code, ran.out]).toEqual([1, ""]);
    expect(ran.err).toContain('hint: the daemon is older than this program; see "bun run cli');
    const status = await at(daemon, "status ping");
    expect([status.code, status.err]).toEqual([0, ""]);
    expect(status.out).toStartWith(`ping  running\n  id         ${A}\n  program    /opt/ping\n`);
  });

  test("tells very long lines is shown by their beginnings, but for logs and programs", async () => {
    const line = "x".repeat(60_000);
    const output = stream([{ time: 0, id: A, stream: "stdout", line }]);
    const failed = { ...STOPPED, name: "ping", state: "failed", reason: "it crashed" };
    using daemon = answering({
      ...known,
      Info: (connection) => connection.ok({ ...INFO, runtimes: { [A]: failed } }),
      Resources: (connection) => connection.ok({}),
      Events: stream([]),
      Output: output,
    });
    const shown = `${"x".repeat(500)}…`;
    const status = await at(daemon, "status ping");
    expect(status.out).toEndWith(`  ${shown}\n`);
    expect((await at(daemon, "why ping")).out).toContain(`Its last line: "${shown}".`);
    expect((await at(daemon, "logs ping")).out).toBe(`${line}\n`);
    const [{ output: lines }] = JSON.parse((await at(daemon, "status ping --json")).out).instances;
    expect(lines[0].line).toBe(line);
  });

  test.each(["status", "why"])("holds very many is not overrun by %s of all", async (verb) => {
    const ids = Array.from({ length: 200 }, (_, i) => `${A.slice(0, -4)}${1000 + i}`);
    const runtimes = Object.fromEntries(ids.map((id, i) => [id, { ...STOPPED, name: `i${i}` }]));
    let most = 0;
    const look = (answer: (connection: FakeConnection) => void) => (connection: FakeConnection) => {
      const open = daemon.connections.filter(({ socket }) => socket.readyState > 0);
      most = Math.max(most, open.length);
      answer(connection);
    };
    using daemon: FakeDaemon = answering({
      Info: (connection) => connection.ok({ ...INFO, runtimes, routes: [] }),
      Resources: (connection) => connection.ok({}),
      Events: look(stream([])),
      Output: look(stream([])),
    });
    const ran = await at(daemon, `${verb} ${ids.join(" ")}`);
    expect([ran.code, ran.err]).toEqual([verb === "why" ? 0 : 3, ""]);
    expect(ran.out).toContain("i199");
    expect(most).toBeLessThanOrEqual(64); // what one address may have
  });

  test("hangs while somebody waits is reported with 6 (R30)", async () => {
    let isHung = false;
    using daemon = answering({
      Info: (connection) => {
        if (!isHung) connection.ok(INFO);
      },
      Events: (connection) => {
        connection.ok(null);
        isHung = true;
        connection.frame(JSON.stringify(event("connected")));
      },
    });
    const setting = { deadlines: { answerMs: 100 } };
    const ran = await at(daemon, "wait pong --for running", setting);
    expect([ran.code, ran.err]).toMatchObject([6, expect.stringContaining("no answer within")]);
    using silent = answering({ Info: known["Info"] as never, Events: stream([], true) });
    const second = await at(silent, "wait pong --for running", setting);
    expect([second.code, second.err]).toMatchObject([6, expect.stringContaining("no answer with")]);
  });

  test.each([
    "start pong",
    "stop ping",
    "restart ping",
    "wait pong --for running",
    "up orchestrator.json",
  ])("hangs is not waited for longer than --timeout: %s", async (line) => {
    using silent = new FakeDaemon(() => {});
    writeFileSync(
      join(silent.folder, "orchestrator.json"),
      JSON.stringify({ name: "rig", instances: { ping: { path: "/bin/sh" } } }),
    );
    using later = answering({ Info: known["Info"] as never });
    using last = answering({ Info: known["Info"] as never, Events: stream([], true) });
    using stopped = answering({
      Info: (connection) => {
        if (connection.bodies.length === 1) connection.ok(INFO);
      },
      Events: stream([], true),
    });
    const startMs = performance.now();
    const daemons = line.startsWith("up") ? [silent] : [silent, later, last, stopped];
    for (const daemon of daemons) {
      const ran = await at(daemon, `${line} --timeout 700ms`, { folder: silent.folder });
      expect([line, ran.code, ran.out]).toEqual([line, 6, ""]);
    }
    expect(performance.now() - startMs).toBeLessThan(1_500 * daemons.length);
  });

  test("is only looked at may take its time, and so may one with a short --timeout", async () => {
    using slow = answering({
      ...known,
      Info: (connection) => void setTimeout(() => connection.ok(INFO), 300),
      Events: stream([], true),
    });
    const look = await at(slow, "wait pong --for running --timeout 0s");
    expect([look.code, look.err]).toEqual([3, "error: Not running: pong is stopped\n"]);
    const late = await at(slow, "wait pong --for running --timeout 50ms");
    expect(late.err).toBe("error: Not running within 50 ms: pong is stopped\n");
  });

  test("tells of a stop after it has answered does not mislead a restart", async () => {
    const running = { ...STOPPED, running: true, state: "running", pid: 5 };
    let events: FakeConnection | undefined;
    const tell = (kind: string, detail: object = {}): void =>
      events?.frame(JSON.stringify(event(kind, detail)));
    using daemon = answering({
      ...known,
      Info: (connection) => connection.ok({ ...INFO, runtimes: { [B]: running } }),
      Events: (connection) => {
        connection.ok(null);
        events = connection;
      },
      Stop: (connection) => connection.ok(null),
      Start: (connection) => {
        connection.ok(null);
        tell("exited", { signal: "SIGINT", ran_ms: 5, stopping: true });
        tell("stopped");
        setTimeout(() => {
          tell("started", { pid: 7 });
          tell("connected");
        }, 20);
      },
    });
    const ran = await at(daemon, "restart pong");
    expect([ran.code, ran.out]).toEqual([0, "restarted pong (pid 5)\n"]);
  });

  test("dies while an instance is started is reported with 5", async () => {
    const daemon: FakeDaemon = answering({
      ...known,
      Events: stream([], true),
      Start: (connection) => {
        connection.ok(null);
        for (const { socket } of daemon.connections) socket.terminate();
        daemon[Symbol.dispose]();
      },
    });
    const ran = await at(daemon, "start pong");
    expect([ran.code, ran.out]).toEqual([5, ""]);
  });

  test("tells of a kind of event that we do not know is understood", async () => {
    const novel = event("re_painted", {}, { time: new Date(2026, 0, 2, 3, 4, 5).getTime() });
    using daemon = answering({ ...known, Events: stream([novel]) });
    const ran = await at(daemon, "events");
    expect(ran).toEqual({ code: 0, out: "2026-01-02 03:04:05  pong re painted\n", err: "" });
  });

  test("sends an item that is none ends the stream with an error", async () => {
    using daemon = answering({ ...known, Output: stream([{ line: 5 }]) });
    const ran = await at(daemon, "logs --json");
    expect([ran.code, ran.out]).toEqual([1, ""]);
    expect(JSON.parse(ran.err)).toEqual({
      error: {
        code: "io",
        message: `Cannot understand who answers at ${JSON.stringify(daemon.path)}`,
        causes: ["an item of a stream has an unknown form"],
        hint: "is this the control socket of an orchestrator?",
        exit: 1,
      },
    });
  });

  test("refuses one of several stops has done the others", async () => {
    const info = {
      ...INFO,
      runtimes: {
        [A]: { ...STOPPED, name: "ping", state: "running", pid: 1 },
        [B]: { ...STOPPED, state: "running", pid: 2 },
      },
    };
    using daemon = answering({
      Info: (connection) => connection.ok(info),
      Events: stream([], true),
      Stop: (connection, id) =>
        id === A
          ? connection.refuse("stop_failed", "Cannot stop", "still there")
          : connection.ok(null),
    });
    const ran = await at(daemon, "stop ping pong --json");
    expect(ran.code).toBe(1);
    expect(JSON.parse(ran.out).instances).toEqual([
      expect.objectContaining({ id: B, changed: true }),
    ]);
    expect(JSON.parse(ran.err).error).toMatchObject({
      code: "stop_failed",
      causes: ["still there"],
    });
  });
});

describe("words", () => {
  test("names and --all exclude each other, and one of them is needed", async () => {
    using daemon = answering(known);
    const both = await at(daemon, "stop ping --all");
    expect([both.code, both.err.split("\n")[0]]).toEqual([
      2,
      'error: Cannot run "stop": --all leaves no room for names',
    ]);
    expect((await at(daemon, "restart")).err).toStartWith(
      'error: Cannot run "restart": NAME or --all is missing\nhint: usage: ',
    );
  });

  test("an instance that is named twice is one", async () => {
    const seen: unknown[] = [];
    using daemon = answering({
      ...known,
      Events: stream([], true),
      Stop: (connection, id) => {
        seen.push(id);
        connection.ok(null);
      },
    });
    expect((await at(daemon, `stop ping fac7 ${A}`)).code).toBe(0);
    expect(seen).toEqual([A]);
  });

  test("an unknown one names the nearest, an ambiguous one the candidates, with 4", async () => {
    using daemon = answering(known);
    for (const verb of ["status", "logs", "events", "start", "stop", "restart"]) {
      const ran = await at(daemon, `${verb} pimg`);
      expect([verb, ran.code, ran.out]).toEqual([verb, 4, ""]);
      expect(ran.err).toEndWith("hint: did you mean ping?\n");
    }
    const ambiguous = await at(daemon, "stop 0195");
    expect(ambiguous.code).toBe(4);
    expect(ambiguous.err).toContain(`it fits ${A} (ping), ${B} (pong)\n`);
    const gone = await at(daemon, `stop ${A.replace("0", "1")}`);
    expect([gone.code, gone.err]).toMatchObject([4, expect.stringContaining("no such id")]);
  });

  test("events -n counts lines: a crash and what follows it are one", async () => {
    const crash = { code: 3, ran_ms: 5 };
    const past = [
      event("exited", crash, { seq: 1 }),
      event("restarting", { restart: 1, in_ms: 5 }, { seq: 2 }),
      event("started", { pid: 7, restart: 1 }, { seq: 3 }),
      event("exited", crash, { seq: 4 }),
      event("restarting", { restart: 2, in_ms: 9 }, { seq: 6 }),
    ] as { seq: number }[];
    const next = event("started", { pid: 8, restart: 2 }, { seq: 8 }) as { seq: number };
    using daemon = answering({
      ...known,
      Events: (connection, body) => {
        const query = body as { last?: number | null; after?: number | null; follow?: boolean };
        const all = query.follow === true ? [...past, next] : past;
        const later = all.filter(({ seq }) => seq > (query.after ?? 0));
        stream(later.slice(-(query.last ?? later.length)))(connection);
      },
    });
    const lines = [
      "pong crashed: code 3 after 5 ms; restart 1 in 5 ms",
      "pong started again (pid 7, restart 1)",
      "pong crashed: code 3 after 5 ms; restart 2 in 9 ms",
      "pong started again (pid 8, restart 2)",
    ];
    const told = async (line: string): Promise<string[]> =>
      (await at(daemon, line)).out.split("\n").map((text) => text.slice(21));
    for (const count of [1, 2, 3]) {
      expect(await told(`events -n ${count}`)).toEqual([...lines.slice(3 - count, 3), ""]);
      expect(await told(`events -f -n ${count}`)).toEqual([...lines.slice(3 - count), ""]);
    }
    expect((await at(daemon, "events --json -n 2")).out.trimEnd().split("\n")).toHaveLength(2);
  });

  test("ps shows a daemon of before, and the screen's width is kept", async () => {
    using daemon = answering(known);
    expect((await at(daemon, "ps")).out).toBe(
      "NAME  STATE    PID  UPTIME  RESTARTS  CONNECTED  MESSAGES  ID\n" +
        "ping  running  123          0         no         0         5185fac7\n" +
        "pong  stopped               0         no         0         5185fa00\n",
    );
    expect((await at(daemon, "ps -q")).out).toBe(`${A}\n${B}\n`);
    const { out } = await at(daemon, "ps --no-color", { screen: true, columns: 30 });
    for (const line of out.trimEnd().split("\n")) expect(line.length).toBeLessThanOrEqual(30);
  });

  test.each([
    ["version", { daemon: "0.1.0", client: "0.1.0" }],
    [`runtime start ${A}`, { id: A }],
    [`runtime remove ${A}`, { id: A }],
    [`link add --type T --to ${A}`, { type_name: "T", from: null, to: A }],
    ["clear", { cleared: true }],
    [`runtime add /opt/x --id ${A} --name x`, { id: A, name: "x", bytes: null, started: false }],
  ])("%s answers in JSON", async (line, document) => {
    const ok = (connection: FakeConnection): void => connection.ok(null);
    using daemon = answering({
      ...known,
      ...Object.fromEntries(["Start", "Remove", "Link", "Clear", "Add"].map((kind) => [kind, ok])),
    });
    const ran = await at(daemon, `${line} --json`);
    expect([ran.code, ran.err, JSON.parse(ran.out)]).toEqual([0, "", document]);
  });

  test("a wrong command line is an error in JSON too", async () => {
    const { code, err } = await run(["ps", "--bogus", "--json"]);
    expect([code, JSON.parse(err).error.code]).toEqual([2, "misuse"]);
  });
});
