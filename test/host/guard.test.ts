import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";

import { isSignalIgnored } from "../../src/host/own.ts";
import SCRIPT from "../../src/host/guard.sh" with { type: "text" };
import { MARK_VARIABLE, readProcess } from "../../src/host/processes.ts";
import { isAlive, marked, Nursery } from "../support/processes.ts";
import { property } from "../support/random.ts";
import { until, within } from "../support/wire.ts";

setDefaultTimeout(60_000);

/** The promise is a second; this is for machines that have a lot else to do. */
const SOON_MS = 10_000;

const nursery = new Nursery();
const EVADER = join(import.meta.dir, "../fixtures/evader.sh");

/** A daemon with a guard, of which a test may do away with what it likes. */
class Guarded {
  readonly runId: string = crypto.randomUUID();
  output = "";
  readonly process: Bun.Subprocess<"pipe", "pipe", "inherit">;

  constructor(...commands: string[]) {
    this.process = Bun.spawn({
      cmd: [
        process.execPath,
        join(import.meta.dir, "../fixtures/guarded.ts"),
        this.runId,
        ...commands,
      ],
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
      detached: true,
    });
    void this.#collect();
  }

  async #collect(): Promise<void> {
    for await (const chunk of this.process.stdout) this.output += Buffer.from(chunk).toString();
  }

  /** The pid of the guard, and those of the programs. */
  started(): Promise<[number, ...number[]]> {
    return this.#numbers("started");
  }

  /** What the programs printed behind "ready", when `count` of them have. */
  async ready(count: number): Promise<number[]> {
    return until("the programs are ready", () => {
      const all = [...this.output.matchAll(/^ready (\d+)$/gm)].map(([, pid]) => Number(pid));
      return all.length >= count && all;
    });
  }

  /** The pid of the guard that there is now. */
  async guard(): Promise<number> {
    this.tell("guard");
    return (await this.#numbers("guard"))[0];
  }

  tell(line: string): void {
    this.process.stdin.write(`${line}\n`);
    this.process.stdin.flush();
  }

  /** Kills the daemon alone, and waits until nothing is left of what it started. */
  async die(pids: readonly number[]): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
    await this.empty(pids);
  }

  async empty(pids: readonly number[]): Promise<void> {
    const left = (): number[] => [...new Set([...marked(this.runId), ...pids.filter(isAlive)])];
    await until(
      () => `nothing of ${this.runId} is left: ${left().join()}`,
      () => left().length === 0,
      SOON_MS,
    );
  }

  async #numbers(word: string): Promise<[number, ...number[]]> {
    const line = await until(word, () =>
      [...this.output.matchAll(new RegExp(`^${word} ([0-9 ]+)$`, "gm"))].at(-1),
    );
    return (line[1] as string).split(" ").map(Number) as [number, ...number[]];
  }
}

describe("When the daemon is killed, its guard", () => {
  test("ends everything that it started, by whatever it may be known, and nobody else", async () => {
    const vices = ["stubborn", "stopped", "session", "clean", "orphan", "left", "tangled"];
    const daemon = new Guarded(
      ...vices.map((vice) => `exec sh ${EVADER} ${vice}`),
      "exec env -i sleep 1000", // known by what the guard was told only
    );
    const [guard, ...pids] = await daemon.started();
    const evaders = await daemon.ready(vices.length);
    const near = nursery.run("env", `NEAR=${MARK_VARIABLE}=${daemon.runId}.1`, "sleep", "1000");
    await daemon.die([...pids, ...evaders]);
    expect(isAlive(near.pid)).toBe(true);
    await until("it has done its work", () => !isAlive(guard), SOON_MS);
    await nursery.end(near);
  });

  test("is not impressed by signals to the daemon's group, nor by signals of a terminal", async () => {
    const daemon = new Guarded("exec sleep 1000");
    const [guard, pid] = await daemon.started();
    expect(readProcess(guard)).toMatchObject({ session: guard, group: guard });
    const status = (): string => readFileSync(`/proc/${guard}/status`, "utf8");
    await until("it ignores signals", () => isSignalIgnored(status(), constants.signals.SIGTSTP));
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP"] as const) {
      process.kill(guard, signal);
    }
    process.kill(-daemon.process.pid, "SIGKILL");
    await daemon.process.exited;
    await daemon.empty([pid as number]);
  });

  test("ends what goes on forking", async () => {
    const counter = join(nursery.folder, "births");
    writeFileSync(counter, "");
    const bomber = join(import.meta.dir, "../fixtures/bomber.sh");
    const daemon = new Guarded(`exec sh ${bomber} 150 ${counter} setsid`);
    const [, pid] = await daemon.started();
    await until("it has forked", () => marked(daemon.runId).length > 30, SOON_MS);
    await daemon.die([pid as number]);
  });

  property("misses nothing in the midst of starts", 3, async (random) => {
    const daemon = new Guarded("endless");
    await daemon.started();
    const wanted = random.int(1, 60);
    await until("some have started", () => marked(daemon.runId).length >= 1, SOON_MS);
    await Bun.sleep(wanted); // any moment will do
    await daemon.die([]);
  });
});

describe("While the daemon lives, its guard", () => {
  test("is replaced when it is killed, and the next one knows everything", async () => {
    const daemon = new Guarded("exec env -i sleep 1000", "exec sleep 1000");
    const [guard, ...pids] = await daemon.started();
    await until("their programs run", () =>
      pids.every((pid) => readProcess(pid)?.command === "sleep"),
    );
    process.kill(guard, "SIGKILL");
    await until("it is told", () => daemon.output.includes("the guard has ended"));
    expect(daemon.output).toContain('status="signal SIGKILL"');
    await daemon.guard();
    expect(pids.map(isAlive)).toEqual([true, true]);
    await daemon.die(pids);
  });

  test("is replaced when it does not read", async () => {
    const daemon = new Guarded("exec sleep 1000");
    const [guard, pid] = await daemon.started();
    process.kill(guard, "SIGSTOP");
    daemon.tell("add");
    await until("it is told", () => daemon.output.includes("the guard has ended"));
    expect(isAlive(pid as number)).toBe(true);
    await daemon.guard();
    await daemon.die([pid as number]);
  });

  test("ends nobody when it is closed", async () => {
    const daemon = new Guarded("exec sleep 1000");
    const [guard, pid] = await daemon.started();
    daemon.tell("close");
    await within("the daemon ends", daemon.process.exited);
    await until("the guard ends", () => !isAlive(guard));
    expect(isAlive(pid as number)).toBe(true);
    process.kill(pid as number, "SIGKILL");
  });
});

/** What a system may have instead of GNU grep: no `-z`. */
function withoutNulLines(): string {
  const folder = join(nursery.folder, "bin");
  mkdirSync(folder, { recursive: true });
  const grep = join(folder, "grep");
  writeFileSync(
    grep,
    `#!/bin/sh\ncase $1 in *z*) exit 2 ;; esac\nexec ${Bun.which("grep")} "$@"\n`,
  );
  chmodSync(grep, 0o755);
  return folder;
}

/** The script as the daemon starts it, with folders before those of `PATH`. */
function spawnGuard(shell: string, runId: string, ...folders: (string | false)[]) {
  const path = [...folders, process.env["PATH"] ?? "/usr/bin:/bin"];
  return Bun.spawn({
    cmd: [shell, "-c", SCRIPT, "guard", runId, ""],
    argv0: "sh",
    env: { PATH: path.filter((folder) => folder !== false).join(":") },
    stdin: "pipe",
    stdout: "ignore",
    stderr: "ignore",
    detached: true,
  });
}

describe("guard.sh", () => {
  const shells = [
    ["dash", "dash"],
    ["bash", "bash"],
    ["busybox", "busybox"],
    ["sh, where grep knows no -z", "sh"],
  ] as const;

  test.each(shells.filter(([, shell]) => Bun.which(shell) !== null))(
    "in %s: ends what it was told, unless it began at another time or is over",
    async (name, shell) => {
      const runId = crypto.randomUUID();
      const guard = spawnGuard(shell, runId, name.includes("-z") && withoutNulLines());
      const clean = (): { pid: number; startTicks: number | undefined } =>
        nursery.run("env", "-i", "sleep", "1000");
      const [told, over, other] = [clean(), clean(), clean()];
      const marks = nursery.run("env", `${MARK_VARIABLE}=${runId}.1`, "sleep", "1000");
      const next = nursery.run("env", `${MARK_VARIABLE}=${runId}0.1`, "sleep", "1000");
      const all = [told, over, other, marks, next].map(({ pid }) => pid);
      await until("they run", () => all.every((pid) => readProcess(pid)?.command === "sleep"));
      guard.stdin.write(
        [
          `+ ${over.pid} ${over.startTicks}`,
          `+ ${told.pid} ${told.startTicks}`,
          `+ ${other.pid} ${(other.startTicks as number) - 1}`,
          `- ${over.pid}`,
          "- 4000000",
          "+ 4", // what is cut off by the daemon's death is not read
        ].join("\n"),
      );
      guard.stdin.end();
      expect(await within("its end", guard.exited, SOON_MS)).toBe(0);
      expect(all.map(isAlive)).toEqual([false, true, true, false, true]);
      for (const { pid } of [over, other]) process.kill(pid, "SIGKILL");
    },
  );

  test.each(shells.filter(([, shell]) => Bun.which(shell) !== null))(
    "in %s: runs nothing that somebody has named a process like, and is not stopped by it",
    async (name, shell) => {
      const runId = crypto.randomUUID();
      const folder = join(nursery.folder, runId);
      mkdirSync(folder);
      writeFileSync(join(folder, "ev"), `#!/bin/sh\n: >${join(folder, "done")}\n`, { mode: 0o755 });
      const names = ["\nx-}`ev` ", "a\nb", "a\n4000000 (b", "\n\n", "$(ev)"];
      const odd = names.map((word) => {
        copyFileSync(Bun.which("sleep") as string, join(folder, word));
        return nursery.run(join(folder, word), "1000");
      });
      const guard = spawnGuard(shell, runId, folder, name.includes("-z") && withoutNulLines());
      const told = nursery.run("env", "-i", join(folder, names[1] as string), "1000");
      const all = [...odd.map(({ pid }) => pid), told.pid];
      const named = [...names, names[1]];
      await until("they run", () => all.every((pid, i) => readProcess(pid)?.command === named[i]));
      guard.stdin.write(`+ ${told.pid} ${told.startTicks}\n`);
      guard.stdin.end();
      const status = await within("its end", guard.exited, SOON_MS);
      expect([status, existsSync(join(folder, "done"))]).toEqual([0, false]);
      expect(all.map(isAlive)).toEqual([...names.map(() => true), false]);
    },
  );
});
