import { beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";

import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { SpawnRequest } from "../../src/host.ts";
import { MAX_NAMED_PROCESSES } from "../../src/limits.ts";
import { MARK_VARIABLE, type ProcessEntry } from "../../src/host/processes.ts";
import { formatProcesses, sumResources, Tree } from "../../src/supervisor/tree.ts";
import { FakeHost, type FakeProcess } from "../support/host.ts";
import { isAlive, marked, Nursery } from "../support/processes.ts";
import { property } from "../support/random.ts";
import { until } from "../support/wire.ts";

setDefaultTimeout(30_000);

const MARK = "run-1.7";

describe("A tree, in memory", () => {
  let host: FakeHost;
  let leader: FakeProcess;
  let tree: Tree;

  beforeEach(() => {
    host = new FakeHost();
    host.stranger();
    ({ leader, tree } = plant(MARK));
    host.stranger();
  });

  function plant(mark: string): { leader: FakeProcess; tree: Tree } {
    const { pid, startTicks } = host.spawn(request(mark));
    const process = host.processes.at(-1) as FakeProcess;
    return { leader: process, tree: new Tree(host, { pid, startTicks, mark }) };
  }

  const pids = async (from: Tree = tree): Promise<number[]> =>
    (await from.left()).map(({ pid }) => pid);
  const gone = (process: FakeProcess): void => {
    process.exit();
    host.turn(0);
  };

  test("holds the process, its group, its session, and nobody else", async () => {
    const child = leader.fork();
    const other = plant("run-1.8");
    expect(await pids()).toEqual([leader.pid, child.pid]);
    expect(await pids(other.tree)).toEqual([other.leader.pid]);
  });

  test.each([
    ["left the session", { session: true }],
    ["cleared its environment", { mark: null }],
    ["left the session and cleared its environment", { session: true, mark: null }],
    ["carries the mark of another orchestrator", { session: true, mark: "run-2.1" }],
  ] as const)("holds a child that %s", async (_, options) => {
    const child = leader.fork(options);
    const grandchild = child.fork({ session: true });
    expect(await pids()).toEqual([leader.pid, child.pid, grandchild.pid]);
  });

  test.each([
    ["left the session", { session: true }],
    ["cleared its environment", { mark: null }],
  ] as const)("holds an orphan that %s", async (_, options) => {
    const parent = leader.fork();
    const orphan = parent.fork(options);
    gone(parent);
    gone(leader);
    expect(orphan.parent).toBe(1);
    expect(await pids()).toEqual([orphan.pid]);
  });

  test("holds whoever was seen in it, even with nothing left to be known by", async () => {
    const parent = leader.fork();
    const orphan = parent.fork({ session: true, mark: null });
    await pids();
    gone(parent);
    const child = orphan.fork();
    expect(await pids()).toEqual([leader.pid, orphan.pid, child.pid]);
  });

  test("holds whoever descended from its process when it was asked to remember, however deep", async () => {
    const parent = leader.fork({ session: true, mark: null });
    const child = parent.fork({ session: true, mark: null });
    tree.remember();
    gone(parent);
    gone(leader);
    expect(await pids()).toEqual([child.pid]);
  });

  test("does not hold an orphan that was never seen, outside the session and without the mark", async () => {
    const parent = leader.fork();
    parent.fork({ session: true, mark: null });
    gone(parent);
    expect(await pids()).toEqual([leader.pid]);
  });

  test("does not count zombies", async () => {
    host.exitDelayMs = 100;
    leader.exit();
    expect(await pids()).toEqual([]);
    expect(tree.isGroupEmpty()).toBe(false);
    host.turn(100);
    expect(tree.isGroupEmpty()).toBe(true);
  });

  test("knows its session by the number only as long as it lasts", async () => {
    gone(leader);
    expect(await pids()).toEqual([]);
    const stranger = host.stranger(leader.pid);
    const child = stranger.fork();
    gone(stranger); // nobody is left who could be told apart by a start time
    expect(await pids()).toEqual([]);
    expect(tree.signal("SIGKILL")).toBe(false);
    expect(tree.isGroupEmpty()).toBe(true);
    expect(await tree.kill(0)).toEqual([]);
    expect([stranger.signals, child.signals]).toEqual([[], []]);
  });

  test("signals nobody who got the pid of its process, however it is asked", async () => {
    const escaped = leader.fork({ session: true });
    gone(leader);
    tree.leaderExited();
    const stranger = host.stranger(leader.pid);
    stranger.fork();
    expect(tree.signal("SIGINT")).toBe(false);
    const left = await tree.left();
    expect(left.map(({ pid }) => pid)).toEqual([escaped.pid]);
    tree.signalEach(left, "SIGTERM");
    const kill = tree.kill(1_000);
    await host.run(1_000);
    expect(await kill).toEqual([]);
    expect(stranger.signals).toEqual([]);
    expect(escaped.signals).toEqual(["SIGTERM", "SIGSTOP", "SIGKILL"]);
  });

  test("whose process was gone before anybody looked still finds the rest", async () => {
    const mark = "run-1.9";
    const { pid } = host.spawn(request(mark));
    const process = host.processes.at(-1) as FakeProcess;
    const rest = process.fork({ mark: null });
    gone(process);
    const late = new Tree(host, { pid, startTicks: undefined, mark });
    expect(await pids(late)).toEqual([rest.pid]);
    gone(rest);
    host.stranger(pid);
    expect(await pids(late)).toEqual([]);
  });

  test("tells what it found, be it killed through its control group before a look", async () => {
    const outside = host.stranger();
    let canLook = false;
    const cgroup = {
      path: "/cgroup/7",
      pids: () => {
        if (canLook) return outside.isAlive ? [outside.pid] : [];
        throw new Error("no descriptor is left");
      },
      kill: () => outside.exit(),
      remove: () => true,
    };
    const { pid, startTicks } = leader;
    for (const found of [[outside.pid], []]) {
      canLook = found.length > 0;
      const told: number[] = [];
      const enclosed = new Tree(host, { pid, startTicks, mark: MARK, cgroup });
      const tell = (entries: readonly ProcessEntry[]): void =>
        void told.push(...entries.map((entry) => entry.pid));
      const kill = enclosed.kill(1_000, tell).catch(() => "failed");
      canLook = true;
      await host.run(1_000);
      expect(await kill).toEqual([]);
      expect(told).toEqual(found);
    }
  });

  test("holds what is in its control group, and kills through it first", async () => {
    const outside = host.stranger();
    const killed: string[] = [];
    const cgroup = {
      path: "/cgroup/7",
      pids: () => (outside.isAlive ? [outside.pid] : []),
      kill: () => void killed.push(...leader.signals, "group"),
      remove: () => true,
    };
    const { pid, startTicks } = leader;
    const enclosed = new Tree(host, { pid, startTicks, mark: MARK, cgroup });
    expect(await pids(enclosed)).toEqual([leader.pid, outside.pid].sort());
    const kill = enclosed.kill(1_000);
    await host.run(1_000);
    expect(await kill).toEqual([]);
    expect(killed).toEqual(["group"]);
    expect(outside.isAlive).toBe(false);
  });

  test("is refused where nothing of the group is ours to signal", () => {
    leader.isForeign = true;
    expect(() => tree.signal("SIGINT")).toThrow(
      `Cannot send SIGINT to process group ${leader.pid}`,
    );
    expect(tree.isGroupEmpty()).toBe(false);
  });

  test("freezes everything before it kills anything", async () => {
    const escaped = leader.fork({ session: true, mark: null });
    let isTooLate = false;
    // Killed first, the parent would leave behind a child that nothing leads to.
    host.table.forEach((process) => {
      const receive = process.receive.bind(process);
      process.receive = (signal) => {
        if (process === escaped && signal === "SIGKILL")
          isTooLate ||= !leader.signals.includes("SIGSTOP");
        receive(signal);
      };
    });
    const kill = tree.kill(1_000);
    await host.run(1_000);
    expect(await kill).toEqual([]);
    expect(isTooLate).toBe(false);
    expect(escaped.signals).toEqual(["SIGSTOP", "SIGKILL"]);
  });

  test("names what SIGKILL does not end, when the time is over", async () => {
    const stuck = leader.fork({ session: true, command: "rsync" });
    stuck.isStuck = true;
    const kill = tree.kill(1_000);
    await host.run(999);
    expect(leader.isAlive).toBe(false);
    await host.run(100);
    expect(formatProcesses(await kill)).toBe(`${stuck.pid} (rsync)`);
  });

  test("looks again when there was no way to look", async () => {
    const { snapshot } = host;
    host.snapshot = () => Promise.reject(new Error("too many open files"));
    expect(await tree.left().catch(String)).toContain("too many open files");
    const kill = tree.kill(1_000);
    await host.run(100);
    host.snapshot = snapshot;
    await host.run(900);
    expect(await kill).toEqual([]);
  });
});

property("Tree.kill() ends a forking tree, and touches no stranger", 150, async (random) => {
  const host = new FakeHost();
  host.snapshotMs = random.int(0, 5);
  host.exitDelayMs = random.int(0, 5);
  const strangers = Array.from({ length: 3 }, () => host.stranger());
  const { pid, startTicks } = host.spawn(request(MARK));
  const tree = new Tree(host, { pid, startTicks, mark: MARK });
  const ours = (): FakeProcess[] => host.table.filter(({ command }) => command !== "stranger");
  const fork = (): void => {
    for (const process of ours()) {
      if (process.state !== "S" || host.table.length > 200 || random.chance(0.6)) continue;
      process.fork(random.pick([{}, { session: true }, { session: true, mark: null }]));
      // One that clears everything and loses its parent before anybody looks is not to be found.
      if (process.mark === MARK && random.chance(0.1)) process.exit();
    }
  };
  for (let i = random.int(0, 4); i > 0; i--) fork();
  const isLost = ({ parent, mark, session, isAlive }: FakeProcess): boolean =>
    isAlive && parent === 1 && mark === undefined && session !== pid;
  for (let lost = ours().find(isLost); lost !== undefined; lost = ours().find(isLost)) lost.exit();
  await host.run(10);
  let left: readonly ProcessEntry[] | undefined;
  tree.kill(2_000).then((entries) => (left = entries));
  for (let ms = 0; ms < 2_100; ms += 10) {
    for (const process of ours()) {
      const isSeen = process.mark === MARK || process.session === pid;
      if (process.state === "S" && isSeen && host.table.length < 400)
        process.fork({ session: true });
    }
    if (random.chance(0.1)) strangers.push(host.stranger());
    await host.run(10);
  }
  expect(left).toEqual([]);
  expect(ours().filter(({ isAlive }) => isAlive).length).toBe(0);
  expect(strangers.flatMap(({ signals }) => signals)).toEqual([]);
});

describe("A tree, of real processes", () => {
  const nursery = new Nursery();

  // R11, but for what only a supervisor does.
  test.each(["stubborn", "stopped", "session", "clean", "orphan", "left", "tangled"])(
    "is ended whole when it is %s",
    async (vice) => {
      const run = nursery.script("evader.sh", vice);
      const [evader] = (await run.ready()) as [number];
      if (vice === "left") await run.exit;
      const expected = vice === "left" ? [evader] : [...new Set([run.pid, evader])];
      expect((await run.tree.left()).map(({ pid }) => pid)).toEqual(expected);
      expect(run.tree.isGroupEmpty()).toBe(false);
      expect(await run.tree.kill(5_000)).toEqual([]);
      expect([isAlive(run.pid), isAlive(evader)]).toEqual([false, false]);
      expect(await run.exit).toEqual(
        vice === "left" ? { code: 0, signal: undefined } : { code: undefined, signal: "SIGKILL" },
      );
      await until("its group is seen empty", () => run.tree.isGroupEmpty());
      expect(run.tree.signal("SIGKILL")).toBe(false);
    },
  );

  test.each([
    ["its group", ""],
    ["sessions of their own", "setsid"],
  ])("R12: is ended while it forks, in %s", async (_, through) => {
    const counter = join(nursery.folder, `births${through}`);
    writeFileSync(counter, "");
    const births = (): number => statSync(counter).size;
    const bomb = nursery.script("bomber.sh", "200", counter, through);
    await until("it has forked", () => births() >= 50);
    const neighbour = nursery.run("sleep", "1000");
    expect(await bomb.tree.kill(10_000)).toEqual([]);
    const total = births();
    expect(marked(bomb.mark)).toEqual([]);
    expect(births()).toBe(total);
    expect(isAlive(neighbour.pid)).toBe(true);
    await nursery.end(neighbour);
  });

  test("sends a signal to those who left the group, if it is asked to", async () => {
    const run = nursery.run(
      "sh",
      "-c",
      `setsid sh -c 'trap "echo ready 2; exit" TERM; echo "ready $$"; sleep 1000 & wait' & sleep 1000`,
    );
    await run.ready();
    expect(run.tree.signal("SIGUSR1")).toBe(true);
    await run.exit;
    const left = await run.tree.left();
    run.tree.signalEach(left.slice(0, 1), "SIGTERM");
    await until("it has ended", () => !isAlive(left[0]?.pid as number));
    await nursery.end(run);
  });

  test("R16: is told from the strangers that get its pid", async () => {
    const wrapper = [process.execPath, join(import.meta.dir, "../fixtures/reuse.ts")];
    const inner = Bun.spawnSync(["unshare", "--pid", "--fork", "--mount-proc", ...wrapper]);
    const said = inner.stdout.toString() + inner.stderr.toString();
    if (/unshare failed|Operation not permitted|unshare: /.test(said)) {
      console.warn(`not tried, for no pid namespace can be made here: ${said.trim()}`);
      return;
    }
    expect(said).toBe("the stranger lives\n");
  });
});

describe("formatProcesses()", () => {
  test("names a few and counts the rest", () => {
    const host = new FakeHost();
    const entries = Array.from({ length: MAX_NAMED_PROCESSES + 2 }, () => host.stranger());
    expect(formatProcesses(entries.slice(0, 2))).toBe("100 (stranger), 101 (stranger)");
    expect(formatProcesses(entries)).toEndWith("109 (stranger) and 2 more");
  });
});

describe("sumResources()", () => {
  const one = { uptimeMs: 5, cpuMs: 10, residentBytes: 100, openFiles: 3, threads: 1 };

  test("adds up, with the longest time since the start", () => {
    expect(sumResources([one, { ...one, uptimeMs: 7 }])).toEqual({
      uptimeMs: 7,
      cpuMs: 20,
      residentBytes: 200,
      openFiles: 6,
      threads: 2,
    });
    expect(sumResources([])).toMatchObject({ uptimeMs: 0, threads: 0, openFiles: 0 });
  });

  test("does not tell a number of open files of which it knows only a part", () => {
    expect(sumResources([one, { ...one, openFiles: undefined }]).openFiles).toBeUndefined();
  });
});

function request(mark: string): SpawnRequest {
  return {
    path: "/opt/ping",
    env: { [MARK_VARIABLE]: mark },
    onExit() {},
    onOutput() {},
    onOutputEnd() {},
  };
}
