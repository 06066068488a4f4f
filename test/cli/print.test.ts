import { describe, expect, test } from "bun:test";

import {
  type Asked,
  exitCode,
  formatError,
  formatLinks,
  formatRuntimes,
  peerNotes,
} from "../../src/cli/print.ts";
import { Progress } from "../../src/cli/progress.ts";
import { ERROR_CODES, type ErrorCode, OrchestratorError } from "../../src/errors.ts";
import type { Info, LinkInfo, RuntimeInfo } from "../../src/protocol/info.ts";
import { DEFAULT_SETTINGS } from "../support/settings.ts";

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";

function runtime(fields: Partial<RuntimeInfo> = {}): RuntimeInfo {
  return {
    running: false,
    binary: "/opt/ping",
    privileged: false,
    name: "ping",
    reason: null,
    started: null,
    due: null,
    restarts: 0,
    ...DEFAULT_SETTINGS,
    hash: null,
    state: "stopped",
    pid: null,
    connected: false,
    dialect: null,
    held: false,
    exit: null,
    exit_by_stop: false,
    messages: { received: 0, unlinked: 0, refused: 0 },
    ...fields,
  };
}

const NO_PEERS = { received: 0, unlinked: 0, refused: 0, strangers: 0 };

function info(runtimes: Record<string, RuntimeInfo>, routes: LinkInfo[] = []): Info {
  return {
    runtimes,
    links: {},
    routes,
    telemetry: null,
    peers: NO_PEERS,
    state: null,
    lost_state: null,
    pid: 1,
    version: "0.1.0",
    time: 0,
  };
}

describe("formatError()", () => {
  const asked = (command: Asked["command"], values: Record<string, string> = {}): Asked => ({
    command,
    values: new Map(Object.entries(values)),
  });

  test("prints the chain and the next command to try", () => {
    const error = new OrchestratorError(
      "cannot_run",
      'Cannot start instance "ping": Cannot run "/opt/ping"',
      { cause: new Error("no such file or directory") },
    );
    expect(formatError(error, asked("runtime start"), false)).toBe(
      'error: Cannot start instance "ping": Cannot run "/opt/ping"\n' +
        "caused by: no such file or directory\n" +
        'hint: remove it with "bun run cli runtime remove ping", and add it with the right path\n',
    );
  });

  test("says to send an uploaded program again", () => {
    const error = new OrchestratorError(
      "cannot_run",
      'Cannot start instance "ping" (0195): Cannot use the uploaded binary /state/binaries/ab',
      { cause: new Error("its bytes are not those that were uploaded") },
    );
    expect(formatError(error, asked("runtime start"), false)).toEndWith(
      'hint: remove it with "bun run cli runtime remove ping", and add it again with --copy\n',
    );
    expect(formatError(error, asked("up"), false)).toEndWith(
      'hint: remove it with "bun run cli runtime remove ping", and type it again\n',
    );
  });

  test("says where to make room for the state, and not for a file of one's own", () => {
    const hintOf = (reason: string): string | undefined => {
      const error = new OrchestratorError("io", "Cannot write", { cause: new Error(reason) });
      return /^hint: (.*)$/m.exec(formatError(error, undefined, false))?.[1];
    };
    expect(hintOf("Cannot change the state: the disk is full, or the state too large")).toBe(
      'make room; "bun run cli doctor" says where',
    );
    expect(hintOf("the disk is full")).toBeUndefined();
  });

  const hints: [ErrorCode, Asked | undefined, string | undefined][] = [
    ["unreachable", undefined, 'start one with "bun run daemon"'],
    [
      "unreachable",
      asked("version", { "--socket": "./my socket" }),
      "start one with \"bun run daemon --control-socket './my socket'\"",
    ],
    ["not_found", asked("runtime stop"), 'see what is there with "bun run cli runtime list"'],
    ["not_found", asked("link remove"), 'see what is there with "bun run cli link list"'],
    [
      "wrong_state",
      asked("runtime remove", { ID: "fac7" }),
      'type "bun run cli runtime stop fac7"',
    ],
    ["wrong_state", asked("runtime stop"), 'see its state with "bun run cli runtime list"'],
    ["not_configured", asked("link add"), "start the daemon with --ipc-socket HOST:PORT"],
    ["already_exists", asked("runtime add"), "leave --id out, and a new one is made"],
    ["bad_request", asked("runtime add"), undefined],
  ];
  test.each(hints)("%s: what to try next", (code, command, hint) => {
    const [, line] = formatError(new OrchestratorError(code, "No"), command, false).split("\n");
    expect(line).toBe(hint === undefined ? "" : `hint: ${hint}`);
  });

  test("already_exists: what to try next if it is the name", () => {
    const message = `Cannot add instance "${ID}": the name "ping" is that of instance ${ID}`;
    const error = new OrchestratorError("already_exists", message);
    expect(formatError(error, asked("runtime add"), false)).toEndWith(
      "\nhint: choose another --name, or leave it out\n",
    );
  });

  test("colours the words in front only", () => {
    const error = new OrchestratorError("misuse", "No", { cause: new Error("why"), hint: "how" });
    expect(formatError(error, undefined, true)).toBe(
      "\x1b[1;31merror:\x1b[0m No\n\x1b[31mcaused by:\x1b[0m why\n\x1b[36mhint:\x1b[0m how\n",
    );
  });

  test("what a daemon says drives no terminal (S10)", () => {
    const hostile = "\x1b]0;title\x07\x1b[2J";
    const error = new OrchestratorError("io", hostile, {
      cause: new Error(hostile),
      hint: hostile,
    });
    expect(formatError(error, undefined, false)).not.toMatch(/[\p{Cc}--\n]/v);
  });
});

test("exitCode() maps every code", () => {
  const codes = ERROR_CODES.map((code) => [code, exitCode(new OrchestratorError(code, ""))]);
  expect(Object.fromEntries(codes)).toEqual({
    bad_request: 1,
    not_found: 4,
    already_exists: 1,
    wrong_state: 1,
    limit_exceeded: 1,
    cannot_run: 1,
    not_configured: 1,
    upload_failed: 1,
    stop_failed: 1,
    permission_denied: 7,
    unreachable: 5,
    timed_out: 6,
    misuse: 2,
    state_unusable: 1,
    io: 1,
    internal: 1,
  });
  expect(exitCode(new TypeError("defect"))).toBe(1);
});

describe("formatRuntimes()", () => {
  test("says every state in words", () => {
    const states: RuntimeInfo[] = [
      runtime({ running: true, state: "running", pid: 123, connected: true, dialect: "veecle" }),
      runtime({ running: true, state: "stopping", pid: 124, privileged: true }),
      runtime(),
      runtime({ exit: { code: 1 } }),
      runtime({ exit: { code: 0 }, messages: { received: 42, unlinked: 0, refused: 0 } }),
      runtime({ exit: { signal: "SIGKILL" }, binary: "/opt/日本" }),
    ];
    const runtimes = Object.fromEntries(states.map((state, n) => [`id-${n}`, state]));
    expect(formatRuntimes(info(runtimes), false)).toBe(
      [
        "ID    NAME  BINARY     STATE                    PRIVILEGED  CONNECTED  MESSAGES",
        "id-0  ping  /opt/ping  running (pid 123)        no          veecle     0",
        "id-1  ping  /opt/ping  stopping (pid 124)       yes         no         0",
        "id-2  ping  /opt/ping  stopped                  no          no         0",
        "id-3  ping  /opt/ping  exited (code 1)          no          no         0",
        "id-4  ping  /opt/ping  exited (code 0)          no          no         42",
        "id-5  ping  /opt/日本  exited (signal SIGKILL)  no          no         0",
        "",
      ].join("\n"),
    );
  });

  test("one row is one line, and drives no terminal (S10)", () => {
    const text = formatRuntimes(info({ [ID]: runtime({ binary: "/a\nb\x1b[31m" }) }), false);
    expect(text.split("\n")).toHaveLength(3);
    expect(text).toContain("/a\\nb\\u{1b}[31m");
  });

  test("without instances prints the header", () => {
    expect(formatRuntimes(info({}), true)).toBe(
      "\x1b[1mID  NAME  BINARY  STATE  PRIVILEGED  CONNECTED  MESSAGES\x1b[0m\n",
    );
  });
});

test("formatLinks() prints names for people, where there are any", () => {
  const link = { queue: "4MiB", on_full: "drop-oldest", owner: null, dropped: {} } as const;
  const counts = { routed: 1, delivered: 1, queued: 0 };
  const routes: LinkInfo[] = [
    { type_name: "T", from: ID, to: "127.0.0.1:2661", ...link, ...counts },
    { type_name: "T", from: null, to: ID, ...link, ...counts },
  ];
  const lines = formatLinks(info({ [ID]: runtime() }, routes), false, { columns: 80 }).split("\n");
  expect(lines[1]).toMatch(/^ping +T +127\.0\.0\.1:2661 +1 /);
  expect(lines[2]).toMatch(/^\(any\) +T +ping +1 /);
});

test("peerNotes() says what a link to another orchestrator has delivered to nobody", () => {
  const link = { type_name: "T", from: null, queue: "4MiB", on_full: "drop-oldest" } as const;
  const counts = { owner: null, dropped: {}, routed: 1, delivered: 1, queued: 0 };
  const to = (port: number, heard: number | null, refused: number | null): LinkInfo => {
    const peer = { heard, refused, suspected: null };
    return { ...link, ...counts, to: `127.0.0.1:${port}`, peer };
  };
  const routes = [to(1, null, 8_000), to(1, null, 8_000), to(2, null, null), to(3, 9_000, 8_000)];
  const nobody =
    "127.0.0.1:1: delivered means sent; its host said 2 s ago that nobody listens there";
  expect(peerNotes(info({}, routes), 10_000, false)).toEqual([nobody]);
  expect(peerNotes(info({}, routes), 10_000, true)).toEqual([
    nobody,
    "127.0.0.1:2: delivered means sent; never heard from, and UDP does not tell whether anybody listens",
  ]);
  expect(peerNotes(info({}, [{ ...link, ...counts, to: ID }]), 10_000, true)).toEqual([]);
});

test("formatLinks() prints source, type, target and accounts", () => {
  const settings = { queue: "4MiB", on_full: "drop-oldest", owner: null } as const;
  const accounts = { routed: 10, delivered: 7, queued: 1 };
  const link = { type_name: "a::Ping", from: null, to: ID, ...settings, ...accounts };
  const routes: LinkInfo[] = [
    { ...link, dropped: { queue_full: 2, oversize: 0 } },
    { ...link, from: ID, to: "127.0.0.1:2661", dropped: { not_utf8: 1, oversize: 1 } },
    { ...link, type_name: "b", dropped: {} },
  ];
  expect(formatLinks(info({}, routes), false)).toBe(
    [
      "FROM                                  TYPE     TO                                    ROUTED  DELIVERED  DROPPED                     QUEUED  QUEUE  ON-FULL",
      `(any)                                 a::Ping  ${ID}  10      7          2 (queue_full 2)            1       4MiB   drop-oldest`,
      `${ID}  a::Ping  127.0.0.1:2661                        10      7          2 (not_utf8 1, oversize 1)  1       4MiB   drop-oldest`,
      `(any)                                 b        ${ID}  10      7          0                           1       4MiB   drop-oldest`,
      "",
    ].join("\n"),
  );
});

describe("Progress", () => {
  function played(
    screen: boolean,
    steps: readonly number[],
    total: number,
    columns?: number,
  ): string[] {
    const texts: string[] = [];
    let now = 1000;
    const progress = new Progress(
      (text) => texts.push(text),
      screen,
      () => now,
      columns,
    );
    for (const sent of steps) {
      now += 60;
      progress.update(sent, total);
    }
    progress.end();
    return texts;
  }

  test.each([10, 40, 60, 70])("stays on one line of a screen of %d columns", (columns) => {
    const pictures = played(true, [1, 250e6, 500e6], 500e6, columns).slice(0, -1);
    expect(pictures.length).toBeGreaterThan(1);
    for (const picture of pictures) {
      expect(Bun.stringWidth(picture.replace("\r\x1b[K", ""))).toBeLessThan(columns);
      expect(picture).toMatch(/\d %/);
    }
  });

  test("prints one line per ten percent away from a screen", () => {
    const steps = Array.from({ length: 1000 }, (_, n) => n + 1);
    const lines = played(false, steps, 1000);
    expect(lines).toHaveLength(10);
    expect(lines[0]).toBe("sent 10 % (100 of 1000 bytes)\n");
    expect(lines[9]).toBe("sent 100 % (1000 of 1000 bytes)\n");
    expect(played(false, [400, 1000], 1000)).toEqual([
      "sent 40 % (400 of 1000 bytes)\n",
      "sent 100 % (1000 of 1000 bytes)\n",
    ]);
  });

  test("draws a bar on a screen, not too often, and takes it away", () => {
    const mib = 1024 * 1024;
    const texts = played(true, [mib, 2 * mib, 3 * mib, 6 * mib, 12 * mib], 12 * mib);
    expect(texts).toEqual([
      "\r\x1b[K[==                      ] 8 %  1.0 MiB of 12.0 MiB  16.7 MiB/s  1 s left",
      "\r\x1b[K[======                  ] 25 %  3.0 MiB of 12.0 MiB  16.7 MiB/s  1 s left",
      "\r\x1b[K[========================] 100 %  12.0 MiB of 12.0 MiB  40.0 MiB/s  0 s left",
      "\r\x1b[K",
    ]);
  });

  test("an empty file has no progress", () => {
    expect(played(false, [], 0)).toEqual([]);
    expect(played(true, [], 0)).toEqual([]);
  });
});
