import { beforeEach, describe, expect, test } from "bun:test";

import { OrchestratorError } from "../src/errors.ts";
import { KILL_WAIT_MS, STOP_GRACE_MS, SWEEP_RETRY_MS } from "../src/limits.ts";
import { Log, parseLogFilter } from "../src/log.ts";
import type { Exit } from "../src/model.ts";
import { Output } from "../src/output.ts";
import { DEFAULT_SETTINGS, type InstanceSettings } from "../src/settings.ts";
import type { HappeningKind } from "../src/supervisor/options.ts";
import { Supervisor } from "../src/supervisor.ts";
import { dieOf, FakeHost, type FakeProcess } from "./support/host.ts";
import { refusal } from "./support/refusal.ts";

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
let host: FakeHost;
let supervisor: Supervisor;
let settings: InstanceSettings;
let told: string[];
let happened: HappeningKind[];
let lastDetail: Readonly<Record<string, unknown>>;
let gone: number[];
let prepared: Promise<void>;
let log: string[];
let newCgroup: () => undefined;

beforeEach(() => {
  host = new FakeHost();
  settings = { ...DEFAULT_SETTINGS, name: "ping" };
  told = [];
  happened = [];
  gone = [];
  prepared = Promise.resolve();
  log = [];
  newCgroup = () => undefined;
  let marks = 0;
  supervisor = new Supervisor({
    id: ID,
    host,
    log: new Log(
      parseLogFilter("info"),
      (line) => log.push(line),
      () => 0,
    ).target("supervisor"),
    output: new Output(),
    settings: () => settings,
    program: () => ({ path: "/opt/ping", env: { A: "b" } }),
    prepare: () => prepared,
    newMark: () => `run.${++marks}`,
    newCgroup: () => newCgroup(),
    random: () => 0.5,
    events: {
      started: () => told.push("started"),
      exited: () => told.push("exited"),
      gone: ({ pid }) => gone.push(pid),
      happened: (kind, detail) => {
        happened.push(kind);
        lastDetail = detail;
      },
    },
  });
});

/** Starts, and hands out the process. */
function start(): FakeProcess {
  supervisor.start(undefined);
  return last();
}

function last(): FakeProcess {
  return host.processes.at(-1) as FakeProcess;
}

/** The process ends, and that is told. */
async function end(process: FakeProcess, exit: Partial<Exit> = { code: 0 }): Promise<void> {
  process.exit(exit);
  await host.run(0);
}

/** Whether a stop has been answered, and how. */
function watch(stop: Promise<void>): { answer: string } {
  const seen = { answer: "" };
  stop.then(
    () => (seen.answer = "stopped"),
    (error: Error) => (seen.answer = error.message),
  );
  return seen;
}

describe("Supervisor.start()", () => {
  test("starts a program, and refuses a second start", () => {
    const { pid } = start();
    expect([supervisor.state, supervisor.pid]).toEqual(["running", pid]);
    expect(told).toEqual(["started"]);
    expect(refusal(() => supervisor.start(undefined))).toBe(
      `wrong_state: Cannot start instance "${ID}": already running (pid ${pid})`,
    );
  });

  test("hands on arguments, folder and variables, and a mark of its own for each run", async () => {
    settings = { ...settings, args: ["-v", ""], cwd: "/srv" };
    await end(start());
    start();
    expect(host.processes.map(({ request }) => request)).toMatchObject([
      { args: ["-v", ""], cwd: "/srv", env: { A: "b", VEECLE_RUNTIME_RUN: "run.1" } },
      { args: ["-v", ""], cwd: "/srv", env: { A: "b", VEECLE_RUNTIME_RUN: "run.2" } },
    ]);
  });

  test("says why a program cannot be run, and may be tried again", () => {
    host.fault = new OrchestratorError("cannot_run", 'Cannot run "/opt/ping"');
    expect(refusal(() => supervisor.start(undefined))).toBe(
      `cannot_run: Cannot start instance "${ID}": Cannot run "/opt/ping"`,
    );
    expect([supervisor.state, told]).toEqual(["stopped", []]);
    host.fault = undefined;
    start();
    expect(supervisor.state).toBe("running");
  });

  test("sets the priority, and starts anyway where it is not permitted", async () => {
    supervisor.start("low");
    expect(host.niced).toEqual([10]);
    await end(last());
    host.permitsNice = false;
    supervisor.start("high");
    expect(supervisor.state).toBe("running");
    expect(log.at(-1)).toContain("not permitted to set the priority");
  });

  test("starts anyway where the system has no control group for it", () => {
    newCgroup = () => {
      throw new Error("there are too many");
    };
    start();
    expect(supervisor.state).toBe("running");
    expect(log.join()).toContain("runs without one");
    expect(log.join()).toContain("there are too many");
  });

  test("takes the priority of the settings if it names none", () => {
    settings = { ...settings, priority: "low" };
    start();
    expect(host.niced).toEqual([10]);
  });
});

describe("An exit", () => {
  test("is seen at once, with code or signal, and the program may start again", async () => {
    await end(start(), { signal: "SIGKILL" });
    expect([supervisor.state, supervisor.pid, supervisor.exit]).toEqual([
      "stopped",
      undefined,
      { code: undefined, signal: "SIGKILL" },
    ]);
    start();
    expect(told).toEqual(["started", "exited", "started"]);
  });

  test("takes along what the process left behind, in its group at once, elsewhere soon", async () => {
    const process = start();
    const child = process.fork();
    const escaped = process.fork({ session: true });
    await end(process);
    expect([child.isAlive, escaped.isAlive]).toEqual([false, true]);
    expect(gone).toEqual([]);
    await host.run(1_100);
    expect(escaped.isAlive).toBe(false);
    expect(gone).toEqual([process.pid]);
    expect(host.timers).toBe(0);
  });

  test("tells that all is gone at last of what could not be ended at first", async () => {
    const process = start();
    const stuck = process.fork({ session: true });
    stuck.isStuck = true;
    await end(process);
    await host.run(KILL_WAIT_MS + SWEEP_RETRY_MS + 2_000);
    expect(log.join("\n")).toContain("cannot end what the child left behind");
    expect(gone).toEqual([]);
    stuck.isStuck = false;
    await host.run(2 * SWEEP_RETRY_MS);
    expect(stuck.isAlive).toBe(false);
    expect(gone).toEqual([process.pid]);
    expect(log.filter((line) => line.includes("what could not be ended is gone"))).toHaveLength(1);
    const count = log.length;
    await host.run(4 * SWEEP_RETRY_MS);
    expect(log).toHaveLength(count);
  });

  test("leaves the next run alone", async () => {
    const process = start();
    process.fork({ session: true });
    await end(process);
    const next = start();
    await host.run(10_000);
    expect([next.isAlive, supervisor.state]).toEqual([true, "running"]);
  });

  test.each([
    ["in its group", { session: false }],
    ["elsewhere", { session: true }],
  ])("tells once that it left something behind %s", async (_, fork) => {
    const process = start();
    const child = process.fork(fork);
    process.fork(fork);
    await end(process);
    await host.run(1_100);
    expect(happened.filter((kind) => kind === "swept")).toEqual(["swept"]);
    const lines = log.filter((line) => line.includes("killing what"));
    expect(lines).toHaveLength(1);
    if (fork.session) expect(lines.join()).toContain(`${child.pid} (${child.command})`);
  });

  test("is swept up at once when that is asked for", async () => {
    const process = start();
    const escaped = process.fork({ session: true });
    await end(process);
    const swept = watch(supervisor.swept());
    await host.run(50);
    expect([escaped.isAlive, swept.answer]).toEqual([false, "stopped"]);
  });
});

describe("A restart", () => {
  beforeEach(() => {
    settings = { ...settings, restart: "on-failure" };
  });

  test("follows a failure after a pause, with the same priority, and is counted", async () => {
    supervisor.start("low");
    await end(last(), { code: 1 });
    expect([supervisor.state, supervisor.dueMs]).toEqual(["waiting", host.now() + 100]);
    expect(supervisor.reason).toBe("it ended with code 1 and is started again");
    await host.run(99);
    expect(supervisor.state).toBe("waiting");
    await host.run(2);
    expect([supervisor.state, supervisor.restartCount]).toEqual(["running", 1]);
    expect([supervisor.reason, supervisor.dueMs]).toEqual([undefined, undefined]);
    expect(host.niced).toEqual([10, 10]);
    expect(happened).toEqual(["started", "exited", "restarting", "started"]);
  });

  test("does not follow a success, nor a stop", async () => {
    await end(start());
    expect(supervisor.state).toBe("stopped");
    const process = start();
    process.react = () => ({ code: 1 });
    await Promise.all([supervisor.stop(), host.run(1_000)]);
    expect(supervisor.state).toBe("stopped");
    await host.run(60_000);
    expect(host.processes).toHaveLength(2);
  });

  test("waits until nothing is left of the last run, unless there is no pause", async () => {
    const process = start();
    const stuck = process.fork({ session: true });
    stuck.isStuck = true;
    await end(process, { code: 1 });
    await host.run(1_000);
    expect(supervisor.state).toBe("waiting");
    stuck.isStuck = false;
    await host.run(200);
    expect(supervisor.state).toBe("running");
    settings = { ...settings, restartDelayMs: 0 };
    last().fork({ session: true }).isStuck = true;
    await end(last(), { code: 1 });
    await host.run(1);
    expect([supervisor.state, supervisor.restartCount]).toEqual(["running", 2]);
  });

  test("ends when it does not help, with the reason, until somebody starts it", async () => {
    host.onSpawn = (process) => process.exit({ signal: "SIGSEGV" });
    start();
    await host.run(120_000);
    expect(supervisor.state).toBe("failed");
    expect(supervisor.reason).toBe("10 starts in 60 s, last exit: signal SIGSEGV");
    expect(host.processes).toHaveLength(10);
    expect(happened.at(-1)).toBe("failed");
    expect(await supervisor.stop().catch(String)).toContain(
      "it is not running (failed: 10 starts in 60 s, last exit: signal SIGSEGV)",
    );
    host.onSpawn = () => {};
    start();
    expect([supervisor.state, supervisor.reason, supervisor.restartCount]).toEqual([
      "running",
      undefined,
      0,
    ]);
  });

  test("that cannot be carried out is tried again like any other", async () => {
    await end(start(), { code: 1 });
    const cause = new Error("it is a folder");
    host.fault = new OrchestratorError("cannot_run", 'Cannot run "/opt/ping"', { cause });
    await host.run(1_000);
    expect([supervisor.state, supervisor.restartCount]).toEqual(["waiting", 3]);
    expect(supervisor.reason).toBe(
      'it could not be started, and that is tried again: Cannot run "/opt/ping": it is a folder',
    );
    host.fault = undefined;
    await host.run(1_000);
    expect(supervisor.state).toBe("running");
  });

  test("is forestalled by a start, by a stop, and by a removal", async () => {
    await end(start(), { code: 1 });
    start();
    await host.run(1_000);
    expect([supervisor.state, host.processes.length]).toEqual(["running", 2]);
    await end(last(), { code: 1 });
    await Promise.all([supervisor.stop(), host.run(10)]);
    await host.run(60_000);
    expect([supervisor.state, host.processes.length]).toEqual(["stopped", 2]);
    await end(start(), { code: 1 });
    supervisor.checkRemove();
    supervisor.discard();
    await host.run(60_000);
    expect(host.processes).toHaveLength(3);
    expect(host.timers).toBe(0);
  });
});

describe("Supervisor.stop()", () => {
  test("interrupts the group, and is answered when nothing is left", async () => {
    const process = start();
    const child = process.fork();
    const stop = watch(supervisor.stop());
    expect(process.signals).toEqual(["SIGINT", "SIGCONT"]);
    await end(process);
    expect([supervisor.state, stop.answer]).toEqual(["stopping", ""]);
    child.exit();
    await host.run(100);
    expect([supervisor.state, stop.answer, gone]).toEqual(["stopped", "stopped", [process.pid]]);
    expect(host.timers).toBe(0);
  });

  test("sends the signal and grants the grace of the settings", async () => {
    settings = { ...settings, stopSignal: "SIGTERM", stopGraceMs: 200 };
    const process = start();
    const stop = watch(supervisor.stop());
    expect(process.signals).toEqual(["SIGTERM", "SIGCONT"]);
    await host.run(199);
    expect(process.isAlive).toBe(true);
    await host.run(60);
    expect([process.isAlive, stop.answer]).toEqual([false, "stopped"]);
  });

  test("asks what has left the group to end as well, and kills it after the grace", async () => {
    const process = start();
    process.react = dieOf("SIGINT");
    const obedient = process.fork({ session: true });
    const stubborn = process.fork({ session: true });
    stubborn.react = () => undefined;
    const stop = watch(supervisor.stop());
    await host.run(1_000);
    expect([obedient.isAlive, stubborn.isAlive]).toEqual([false, true]);
    expect(stubborn.signals).toEqual(["SIGINT"]);
    expect(stop.answer).toBe("");
    await host.run(STOP_GRACE_MS);
    expect([stubborn.isAlive, stop.answer]).toEqual([false, "stopped"]);
    expect([happened.at(-1), lastDetail["killed"]]).toEqual([
      "stopped",
      `${stubborn.pid} (${stubborn.command})`,
    ]);
  });

  test("kills everything when the grace is over", async () => {
    const process = start();
    const stop = watch(supervisor.stop());
    await host.run(STOP_GRACE_MS - 1);
    expect(process.isAlive).toBe(true);
    await host.run(100);
    expect([process.signals.at(-1), stop.answer]).toEqual(["SIGKILL", "stopped"]);
    expect(lastDetail).toEqual({ pid: process.pid }); // how it ended is told already
  });

  test("kills at once if that is the signal", async () => {
    settings = { ...settings, stopSignal: "SIGKILL" };
    start();
    const stop = watch(supervisor.stop());
    await host.run(50);
    expect(stop.answer).toBe("stopped");
  });

  test("with SIGKILL finds what has left the group before its parent is gone", async () => {
    settings = { ...settings, stopSignal: "SIGKILL" };
    const hidden = start().fork().fork({ session: true, mark: null });
    const stop = watch(supervisor.stop());
    await host.run(50);
    expect([stop.answer, hidden.isAlive]).toEqual(["stopped", false]);
  });

  test("asks those who may be asked, and goes on if the others may not", async () => {
    start().fork().isForeign = true;
    last().react = dieOf("SIGINT");
    host.exitDelayMs = 1;
    const child = last().fork();
    child.react = dieOf("SIGINT");
    const stop = watch(supervisor.stop());
    await host.run(STOP_GRACE_MS + KILL_WAIT_MS + 200);
    expect([child.isAlive, stop.answer]).toEqual([false, expect.stringContaining("still there")]);
  });

  test("of one that waits tells once that its last run is gone", async () => {
    settings = { ...settings, restart: "on-failure" };
    await end(start(), { code: 1 });
    await Promise.all([supervisor.stop(), host.run(2_000)]);
    expect(gone).toEqual([last().pid]);
  });

  test("names what survives SIGKILL, and may be tried again", async () => {
    const process = start();
    process.isStuck = true;
    const stop = watch(supervisor.stop());
    await host.run(STOP_GRACE_MS + KILL_WAIT_MS + 100);
    expect(stop.answer).toContain(
      `still there ${KILL_WAIT_MS} ms after SIGKILL: ${process.pid} (ping)`,
    );
    expect([supervisor.state, happened.at(-1)]).toEqual(["running", "stop_failed"]);
    process.isStuck = false;
    const again = watch(supervisor.stop());
    await host.run(STOP_GRACE_MS + 100);
    expect(again.answer).toBe("stopped");
  });

  test("that failed is carried out by the end of the process, whenever that comes", async () => {
    settings = { ...settings, restart: "always" };
    const process = start();
    process.isStuck = true;
    const stop = watch(supervisor.stop());
    await host.run(STOP_GRACE_MS + KILL_WAIT_MS + 100);
    expect(stop.answer).toContain("still there");
    process.isStuck = false;
    await end(process, { signal: "SIGKILL" });
    await host.run(60_000);
    expect([supervisor.state, host.processes.length]).toEqual(["stopped", 1]);
  });

  test("of which only a stray survives leaves it startable", async () => {
    const process = start();
    process.react = dieOf("SIGINT");
    const stray = process.fork({ session: true });
    [stray.isStuck, stray.react] = [true, () => undefined];
    const stop = watch(supervisor.stop());
    await host.run(STOP_GRACE_MS + KILL_WAIT_MS + 200);
    expect(stop.answer).toContain("still there");
    expect(supervisor.state).toBe("stopped");
    start();
    expect(supervisor.state).toBe("running");
    stray.isStuck = false;
    await host.run(2 * SWEEP_RETRY_MS);
    expect([stray.isAlive, supervisor.state]).toEqual([false, "running"]);
    expect(gone).toEqual([process.pid]);
  });

  test("is joined by a second one; a start is refused meanwhile", async () => {
    const process = start();
    const [first, second] = [watch(supervisor.stop()), watch(supervisor.stop())];
    expect(refusal(() => supervisor.start(undefined))).toContain("it is stopping");
    expect(refusal(() => supervisor.checkRemove())).toContain("it is stopping");
    await end(process);
    await host.run(10);
    expect([first.answer, second.answer]).toEqual(["stopped", "stopped"]);
  });

  test("of a process out of our reach is refused, and changes nothing", async () => {
    const process = start();
    process.isForeign = true;
    expect(await supervisor.stop().catch(String)).toContain(`Cannot stop instance "${ID}"`);
    expect(supervisor.state).toBe("running");
    process.isForeign = false;
    const stop = watch(supervisor.stop());
    await end(process);
    await host.run(10);
    expect(stop.answer).toBe("stopped");
  });

  test("of one that does not run says how it ended", async () => {
    expect(await supervisor.stop().catch(String)).toContain("it is not running");
    await end(start(), { code: 3 });
    expect(await supervisor.stop().catch(String)).toContain("(last exit: code 3)");
  });
});

test("Supervisor.undoStart() of one that has crashed already is not followed by a restart", async () => {
  settings = { ...settings, restart: "always" };
  await end(start(), { code: 1 });
  supervisor.undoStart();
  await host.run(60_000);
  expect([supervisor.state, host.processes.length]).toEqual(["stopped", 1]);
});

test("A number that went to somebody else in the meantime is nobody's of ours", async () => {
  const process = start();
  await end(process);
  await host.run(250);
  const stranger = host.stranger(process.pid);
  const child = stranger.fork();
  stranger.exit();
  await host.run(10_000);
  expect([child.signals, gone]).toEqual([[], [process.pid]]);
});

test("A number that went to one of ours in the meantime is ended like any other", async () => {
  const process = start();
  const child = process.fork({ session: true });
  await end(process);
  host.nextPid = process.pid;
  const heir = child.fork({ session: true });
  expect(heir.pid).toBe(process.pid);
  await host.run(1_100);
  expect([host.table, gone]).toEqual([[], [process.pid]]);
});

test("Supervisor.undoStart() leaves nothing of a start that could not be remembered", async () => {
  const process = start();
  process.fork({ session: true });
  supervisor.undoStart();
  await host.run(100);
  expect([supervisor.state, host.table.length]).toEqual(["stopped", 0]);
});

test("A process that somebody has killed may have been the kernel's, and one that was stopped not", async () => {
  host.kills = { count: 2, withinMs: 1_499.5 };
  const killed = "memory_kills=2 memory_kills_ms=1500";
  await end(start(), { signal: "SIGKILL" });
  expect(log.at(-1)).toEndWith(killed);
  await end(start(), { signal: "SIGSEGV" });
  expect(log.at(-1)).not.toContain(killed);
  host.kills = undefined;
  await end(start(), { signal: "SIGKILL" });
  expect(log.at(-1)).toEndWith('SIGKILL"');
  host.kills = { count: 1, withinMs: 1 };
  settings = { ...settings, stopSignal: "SIGKILL" };
  start();
  void supervisor.stop();
  await host.run(1_000);
  expect(supervisor.state).toBe("stopped");
  expect(log.join("\n").split("memory_kills=")).toHaveLength(2);
});

test.each(["start", "stop"] as const)(
  "A restart that cannot be carried out is nothing any more after a %s meanwhile",
  async (verb) => {
    settings = { ...settings, restart: "always" };
    await end(start(), { code: 1 });
    const { promise, reject } = Promise.withResolvers<void>();
    prepared = promise;
    await host.run(200); // the program is being looked at
    const stop = verb === "stop" ? supervisor.stop() : undefined;
    if (verb === "start") supervisor.start(undefined);
    reject(new Error("it was edited"));
    await host.run(10_000);
    await stop;
    const [state, processes] =
      verb === "start" ? (["running", 2] as const) : (["stopped", 1] as const);
    expect([supervisor.state, host.processes.length]).toEqual([state, processes]);
  },
);

test.each([
  [true, 4],
  [false, 0],
])("Supervisor.start() counts on after a daemon that was killed: %p", (isAgain, count) => {
  const last = { exit: { code: 1, signal: undefined }, wasStopped: false, restarts: 4 };
  supervisor.restore({ failed: null, last });
  supervisor.start(undefined, isAgain);
  expect(supervisor.restartCount).toBe(count);
});

test("Supervisor.restoreFailed() counts as a restart that failed", async () => {
  supervisor.restoreFailed("no such file");
  expect([supervisor.state, supervisor.reason]).toEqual(["failed", "no such file"]);
  expect(happened).toEqual(["failed"]);
  start();
  supervisor.restoreFailed("late"); // somebody was faster
  expect(supervisor.state).toBe("running");
  await end(last());
  settings = { ...settings, restart: "on-failure" };
  supervisor.restoreFailed("no such file");
  expect([supervisor.state, host.processes.length]).toEqual(["waiting", 1]);
  await host.run(150);
  expect([supervisor.state, host.processes.length]).toEqual(["running", 2]);
});

test("Supervisor.discard() lets go of the output of former runs too, which others hold open", async () => {
  settings = { ...settings, restart: "always" };
  const [first, holder] = [start(), host.stranger()];
  Object.assign(holder, { output: first.output }); // handed on to one who is not of the tree
  await end(first, { code: 1 });
  await host.run(1_000);
  await end(last(), { code: 1 });
  supervisor.discard();
  expect(host.released).toEqual([first.pid]);
});

test("Supervisor.stop() of one that waits although it was never started is answered at once", async () => {
  settings = { ...settings, restart: "always" };
  supervisor.restoreFailed("no such file");
  expect(supervisor.state).toBe("waiting");
  await supervisor.stop();
  expect(supervisor.state).toBe("stopped");
  expect(happened).toEqual(["restarting", "stopped"]);
  await host.run(60_000);
  expect([supervisor.state, host.processes.length]).toEqual(["stopped", 0]);
  start();
  expect(supervisor.state).toBe("running");
});
