import { beforeEach, describe, expect, test } from "bun:test";

import { OrchestratorError } from "../src/errors.ts";
import { GROUP_POLL_MS, KILL_WAIT_MS, STOP_GRACE_MS } from "../src/limits.ts";
import { Log, parseLogFilter } from "../src/log.ts";
import type { Exit } from "../src/model.ts";
import { Output } from "../src/output.ts";
import { Supervisor } from "../src/supervisor.ts";
import { FakeHost, type FakeProcess } from "./support/host.ts";
import { refusal } from "./support/refusal.ts";

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
let host: FakeHost;
let supervisor: Supervisor;
let told: string[];
let log: string[];

beforeEach(() => {
  host = new FakeHost();
  told = [];
  log = [];
  supervisor = new Supervisor({
    id: ID,
    path: "/opt/ping",
    env: {},
    host,
    log: new Log(
      parseLogFilter("info"),
      (line) => log.push(line),
      () => 0,
    ).target("supervisor"),
    output: new Output(),
    events: { started: () => told.push("started"), exited: () => told.push("exited") },
  });
});

/** Starts, and hands out the process. */
function start(): FakeProcess {
  supervisor.start(undefined);
  return host.processes.at(-1) as FakeProcess;
}

/** The process ends; what else is in its group stays. */
function end(process: FakeProcess, exit: Partial<Exit> = { code: 0 }): void {
  process.exit(exit);
  host.turn(0);
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

const settled = (): Promise<void> => Promise.resolve().then(() => Promise.resolve());

describe("Supervisor.start()", () => {
  test("starts a program, and refuses a second start", () => {
    const { pid } = start();
    expect([supervisor.state, supervisor.pid]).toEqual(["running", pid]);
    expect(told).toEqual(["started"]);
    expect(refusal(() => supervisor.start(undefined))).toBe(
      `wrong_state: Cannot start instance "${ID}": already running (pid ${pid})`,
    );
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

  test("sets the priority, and starts anyway where it is not permitted", () => {
    supervisor.start("low");
    expect(host.niced).toEqual([10]);
    end(host.processes[0] as FakeProcess);
    host.permitsNice = false;
    supervisor.start("high");
    expect(supervisor.state).toBe("running");
    expect(log.at(-1)).toContain("not permitted to set the priority");
  });
});

describe("An exit", () => {
  test("is seen at once, with code or signal, and the program may start again", () => {
    end(start(), { signal: "SIGKILL" });
    expect([supervisor.state, supervisor.pid, supervisor.exit]).toEqual([
      "stopped",
      undefined,
      { code: undefined, signal: "SIGKILL" },
    ]);
    start();
    expect(told).toEqual(["started", "exited", "started"]);
  });

  test("takes along what the process left behind in its group", () => {
    const process = start();
    const child = process.fork();
    end(process);
    expect(child.signals).toEqual(["SIGKILL"]);
  });
});

describe("Supervisor.stop()", () => {
  test("interrupts the group, and is answered when it is empty", async () => {
    const process = start();
    const child = process.fork();
    const stop = watch(supervisor.stop());
    expect(process.signals).toEqual(["SIGINT"]);
    end(process);
    await settled();
    expect([supervisor.state, stop.answer]).toEqual(["stopping", ""]);
    child.exit();
    host.turn(GROUP_POLL_MS);
    await settled();
    expect([supervisor.state, stop.answer]).toEqual(["stopped", "stopped"]);
    expect(host.timers).toBe(0);
  });

  test("kills the group when the grace is over", async () => {
    const process = start();
    const stop = watch(supervisor.stop());
    host.turn(STOP_GRACE_MS - 1);
    expect(process.signals).toEqual(["SIGINT"]);
    host.turn(1);
    expect(process.signals).toEqual(["SIGINT", "SIGKILL"]);
    host.turn(0);
    await settled();
    expect(stop.answer).toBe("stopped");
  });

  test("names what survives SIGKILL, and may be tried again", async () => {
    const process = start();
    process.isStuck = true;
    const stop = watch(supervisor.stop());
    host.turn(STOP_GRACE_MS + KILL_WAIT_MS);
    await settled();
    expect(stop.answer).toContain(
      `still there ${KILL_WAIT_MS} ms after SIGKILL: pid ${process.pid}`,
    );
    expect(supervisor.state).toBe("running");
    const again = watch(supervisor.stop());
    end(process);
    await settled();
    expect(again.answer).toBe("stopped");
  });

  test("is joined by a second one; a start is refused meanwhile", async () => {
    const process = start();
    const [first, second] = [watch(supervisor.stop()), watch(supervisor.stop())];
    expect(refusal(() => supervisor.start(undefined))).toContain("it is stopping");
    end(process);
    await settled();
    expect([first.answer, second.answer]).toEqual(["stopped", "stopped"]);
  });

  test("of a process out of our reach is refused, and changes nothing", async () => {
    start();
    const { signalGroup } = host;
    host.signalGroup = () => {
      throw Object.assign(new Error("EPERM"), { code: "EPERM", errno: -1 });
    };
    expect(await supervisor.stop().catch(String)).toContain("Cannot send SIGINT");
    expect(supervisor.state).toBe("running");
    host.signalGroup = signalGroup;
    const stop = watch(supervisor.stop());
    end(host.processes[0] as FakeProcess);
    await settled();
    expect(stop.answer).toBe("stopped");
  });

  test("of one that does not run says how it ended", async () => {
    expect(await supervisor.stop().catch(String)).toContain("it is not running");
    end(start(), { code: 3 });
    expect(await supervisor.stop().catch(String)).toContain("(last exit: code 3)");
  });
});
