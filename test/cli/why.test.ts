import { expect, test } from "bun:test";

import { explain, type Facts } from "../../src/cli/why.ts";
import type { EventInfo } from "../../src/protocol/info.ts";
import { A, B, STOPPED } from "../support/typist.ts";

const NOW = 100_000;

function event(kind: string, secondsAgo: number, detail: object = {}): EventInfo {
  const time = NOW - secondsAgo * 1_000;
  return { seq: 1, time, kind, id: A, name: "ping", detail: detail as EventInfo["detail"] };
}

interface Case {
  readonly runtime?: object;
  readonly links?: readonly object[];
  readonly events?: readonly EventInfo[];
  readonly line?: string;
}

function told({ runtime = {}, links = [], events = [], line }: Case): (string | null)[] {
  const facts = {
    instance: {
      id: A,
      name: "ping",
      runtime: { ...STOPPED, restart: "no", restarts: 0, due: null, ...runtime },
    },
    links,
    events,
    lastLine: line === undefined ? undefined : { line },
  } as unknown as Facts;
  const { why, next } = explain(facts, (id) => (id === A ? "ping" : "pong"), NOW);
  return [why, next];
}

const CRASH = event("exited", 3, { signal: "SIGSEGV", ran_ms: 3_200, stopping: false });
const RUNNING = { state: "running", pid: 7, started: NOW - 60_000, connected: true };

const table: [name: string, given: Case, why: string, next: string | null][] = [
  ["never started", {}, "ping has not been started.", "start ping"],
  [
    "stopped",
    {
      runtime: { exit: { signal: "SIGINT" } },
      events: [event("exited", 5, { signal: "SIGINT", ran_ms: 10, stopping: true })],
    },
    "ping was stopped 5 s ago (signal SIGINT).",
    "start ping",
  ],
  [
    "stopped, with some that had to be killed",
    {
      runtime: { exit: { signal: "SIGINT" }, stop_signal: "SIGINT" },
      events: [
        event("stopping", 6, { signal: "SIGINT", grace_ms: 5_000, pid: 7 }),
        event("exited", 6, { pid: 7, signal: "SIGINT", ran_ms: 10, stopping: true }),
        event("stopped", 1, { pid: 7, killed: "8 (sleep)" }),
      ],
    },
    "ping was stopped 6 s ago (signal SIGINT). What it had started did not end within 5 s of SIGINT " +
      "and was killed: 8 (sleep). Commands that a shell runs in the background ignore SIGINT; " +
      "--stop-signal SIGTERM reaches them.",
    "start ping",
  ],
  [
    "stopped by another signal, with some that had to be killed",
    {
      runtime: { exit: { code: 0 }, stop_signal: "SIGTERM" },
      events: [
        event("stopping", 6, { signal: "SIGTERM", grace_ms: 500, pid: 7 }),
        event("exited", 6, { pid: 7, code: 0, ran_ms: 10, stopping: true }),
        event("stopped", 1, { pid: 7, killed: "8 (sleep)" }),
      ],
    },
    "ping was stopped 6 s ago (code 0). What it had started did not end within 500 ms of SIGTERM and " +
      "was killed: 8 (sleep).",
    "start ping",
  ],
  [
    "ended, with processes left behind",
    {
      runtime: { exit: { code: 0 } },
      events: [
        event("exited", 3, { pid: 7, code: 0, ran_ms: 20, stopping: false }),
        event("swept", 2, { pid: 7 }),
      ],
      line: "starting",
    },
    "ping ended by itself 3 s ago (code 0), after it had run for 20 ms. It left processes behind, " +
      "which were killed: a program must not go into the background. It is not started again, since " +
      'its policy is no. Its last line: "starting".',
    "start ping",
  ],
  [
    "crashed, where the run before had left processes behind",
    {
      runtime: { exit: { signal: "SIGSEGV" } },
      events: [event("swept", 9, { pid: 6 }), event("started", 8, { pid: 7 }), CRASH],
    },
    "ping crashed 3 s ago (signal SIGSEGV), after it had run for 3.2 s. It is not started again, " +
      "since its policy is no. It printed nothing.",
    "start ping",
  ],
  [
    "crashed",
    { runtime: { exit: { signal: "SIGSEGV" } }, events: [CRASH], line: "no can0" },
    "ping crashed 3 s ago (signal SIGSEGV), after it had run for 3.2 s. It is not started again, " +
      'since its policy is no. Its last line: "no can0".',
    "start ping",
  ],
  [
    "waiting",
    {
      runtime: {
        state: "waiting",
        exit: { signal: "SIGSEGV" },
        restart: "always",
        restarts: 1,
        due: NOW + 200,
      },
      events: [CRASH, event("restarting", 3, { restart: 2, in_ms: 300, after: "signal SIGSEGV" })],
    },
    "ping crashed 3 s ago (signal SIGSEGV), after it had run for 3.2 s. It is started again in " +
      "200 ms (restart 2), since its policy is always. It printed nothing.",
    "logs ping",
  ],
  [
    "waiting, since it could not be started again",
    {
      runtime: {
        state: "waiting",
        exit: { signal: "SIGSEGV" },
        restart: "always",
        restarts: 2,
        due: NOW + 200,
      },
      events: [
        CRASH,
        event("restarting", 3, { restart: 2, in_ms: 100, after: "signal SIGSEGV" }),
        event("restarting", 2, { restart: 3, in_ms: 200, after: 'Cannot run "p": it is a folder' }),
      ],
    },
    "ping crashed 3 s ago (signal SIGSEGV), after it had run for 3.2 s. Since then it could not be " +
      'started: Cannot run "p": it is a folder. It is started again in 200 ms (restart 3), since its ' +
      'policy is always. To mend that, remove it with "bun run cli runtime remove ping", and add it ' +
      "with the right path.",
    "start ping",
  ],
  [
    "failed",
    { runtime: { state: "failed", reason: "10 starts in 60 s" }, line: "no can0" },
    "ping has failed and is not started again: 10 starts in 60 s. " +
      'Its last line: "no can0". Mend the cause, then start it.',
    "start ping",
  ],
  ...(
    [
      [
        "permission denied (is it executable?)",
        "make it executable with chmod +x '/opt/it'\\''s here'.",
      ],
      [
        "the interpreter or loader that it names does not exist",
        "install what its first line names, or build it for this machine.",
      ],
      [
        'the interpreter "/bin/sh" that it names does not exist',
        "install what its first line names, or build it for this machine.",
      ],
      [
        'the interpreter "/bin/sh\\r" that it names does not exist',
        "end its lines as Unix does: sed -i 's/\\r$//' '/opt/it'\\''s here'.",
      ],
      [
        'permission denied (the interpreter "/etc/passwd" that it names is no program, or its disk ' +
          "is mounted noexec)",
        "mend its first line, or move it to a disk from which programs may be run.",
      ],
      [
        "this user may have no more processes",
        "stop another one, or raise the daemon's limit: ulimit -u, or TasksMax= in its unit.",
      ],
      [
        "too many open files",
        "stop another one, or raise the daemon's limit: ulimit -Hn, or LimitNOFILE= in its unit.",
      ],
      ["somebody has the file open to write to it", "start it again when that is done."],
      [
        "not a program that this machine can run",
        "build it for this machine; a script begins with #! and its interpreter.",
      ],
      [
        'Cannot enter the working folder "/none": no such file or directory',
        'make that folder, or add it with another --cwd; see "bun run cli runtime add --help".',
      ],
      ...[
        "no such file or directory",
        "it is a folder",
        "it is not a regular file",
        "no such program in PATH",
      ].map((reason) => [
        reason,
        'remove it with "bun run cli runtime remove ping", and add it with the right path.',
      ]),
    ] as [string, string][]
  ).map(([reason, mending]): (typeof table)[number] => [
    `never started: ${reason}`,
    { runtime: { binary: "/opt/it's here" }, events: [event("start_failed", 5, { reason })] },
    `ping could not be started 5 s ago: ${reason}. To mend that, ${mending}`,
    "start ping",
  ]),
  [
    "not there, and of a manifest",
    {
      runtime: { owner: "rig" },
      events: [event("start_failed", 5, { reason: "no such file or directory" })],
    },
    "ping could not be started 5 s ago: no such file or directory. " +
      'To mend that, correct its path in the manifest, and type "bun run cli up" again.',
    "start ping",
  ],
  ...(
    [
      [undefined, "add it again with --copy."],
      ["rig", 'type "bun run cli up" again.'],
    ] as [string | undefined, string][]
  ).map(([owner, again]): (typeof table)[number] => [
    `uploaded, and changed since: ${owner}`,
    {
      runtime: { owner, hash: "ab" },
      events: [event("start_failed", 5, { reason: "its bytes are not those that were uploaded" })],
    },
    "ping could not be started 5 s ago: its bytes are not those that were uploaded. " +
      `To mend that, remove it with "bun run cli runtime remove ping", and ${again}`,
    "start ping",
  ]),
  [
    "stopping",
    {
      runtime: { state: "stopping", stop_grace_ms: 5_000 },
      events: [event("stopping", 2, { signal: "SIGTERM", grace_ms: 5_000 })],
    },
    "ping is being stopped: SIGTERM was sent 2 s ago. It is killed in 3 s.",
    null,
  ],
  ["running", { runtime: RUNNING }, "ping has run for 1 min (pid 7).", "status ping"],
  [
    "running, without a connection",
    { runtime: { ...RUNNING, connected: false }, links: [{ from: B, to: A, queued: 12 }] },
    "ping has run for 1 min (pid 7). It has not connected to its socket. " +
      "12 messages for it wait until it does.",
    "status ping",
  ],
  [
    "sending to nobody",
    {
      runtime: RUNNING,
      links: [
        {
          from: A,
          to: "127.0.0.1:1",
          type_name: "a::T",
          queued: 0,
          peer: { heard: null, refused: NOW - 2_000, suspected: null },
        },
      ],
    },
    "ping has run for 1 min (pid 7). Its messages a::T go to 127.0.0.1:1: " +
      "its host said 2 s ago that nobody listens there.",
    "link list",
  ],
  [
    "held by a link",
    {
      runtime: { ...RUNNING, held: true },
      links: [{ from: A, to: B, queued: 100, on_full: "block", type_name: "a::T" }],
    },
    "ping has run for 1 min (pid 7). " +
      "It is not read from, since its messages a::T for pong are not taken.",
    "why pong",
  ],
];

test.each(table)("explain() an instance that is %s", (_name, given, why, next) => {
  expect(told(given)).toEqual([why, next]);
});
