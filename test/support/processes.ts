// Real processes for tests: started through the real system, each with a mark of its own, and gone
// at the end of the test whatever it found.

import { afterAll, afterEach } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Cgroup } from "../../src/host/cgroup.ts";
import { type Host, systemHost } from "../../src/host.ts";
import type { Exit } from "../../src/model.ts";
import { MARK_VARIABLE, readProcess } from "../../src/host/processes.ts";
import { Tree } from "../../src/supervisor/tree.ts";
import { until, within } from "./wire.ts";

const FIXTURES = join(import.meta.dir, "../fixtures");

/** A run of a program of `test/fixtures`, or of another one. */
export interface Run {
  readonly pid: number;
  readonly startTicks: number | undefined;
  readonly mark: string;
  readonly tree: Tree;
  readonly exit: Promise<Exit>;
  /** The numbers behind "ready", when they have been printed. */
  ready(): Promise<number[]>;
}

export function isAlive(pid: number): boolean {
  const state = readProcess(pid)?.state;
  return state !== undefined && state !== "Z";
}

function processIds(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number);
}

/** Whoever carries a mark that begins like this, by a look of the test's own. */
export function marked(prefix: string): number[] {
  return processIds().filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, "latin1")
        .split("\0")
        .some((variable) => variable.startsWith(`${MARK_VARIABLE}=${prefix}`));
    } catch {
      return false;
    }
  });
}

/** The processes of one test file; what a test leaves is ended after it. */
export class Nursery {
  readonly host: Host = systemHost((error) => {
    throw error;
  });
  readonly runId: string = crypto.randomUUID();
  readonly folder: string = mkdtempSync(join(tmpdir(), "vo-"));
  readonly #started = new Map<number, number | undefined>();
  #number = 0;

  constructor() {
    afterEach(() => {
      for (const pid of new Set([...marked(this.runId), ...this.#inSessions()])) {
        if (pid !== process.pid) process.kill(pid, "SIGKILL");
      }
      this.#started.clear();
    });
    afterAll(() => rmSync(this.folder, { recursive: true, force: true }));
  }

  /** Runs a program of `test/fixtures` with `sh`. */
  script(name: string, ...args: string[]): Run {
    return this.run("sh", join(FIXTURES, name), ...args);
  }

  run(path: string, ...args: string[]): Run {
    return this.enclose(undefined, path, ...args);
  }

  /** Runs a program in a control group. */
  enclose(cgroup: Cgroup | undefined, path: string, ...args: string[]): Run {
    const mark = `${this.runId}.${++this.#number}`;
    const { promise: exit, resolve } = Promise.withResolvers<Exit>();
    let output = "";
    const { pid, startTicks } = this.host.spawn({
      path,
      args,
      env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin", [MARK_VARIABLE]: mark },
      cgroup: cgroup?.path,
      onExit: resolve,
      onOutput: (_, chunk) => {
        output += Buffer.from(chunk).toString();
        return undefined;
      },
      onOutputEnd() {},
    });
    this.#started.set(pid, startTicks);
    return {
      pid,
      startTicks,
      mark,
      tree: new Tree(this.host, { pid, startTicks, mark, cgroup }),
      exit,
      ready: async () => {
        const line = await until(
          () => `"ready" of ${args.join(" ")}`,
          () => /^ready (.*)$/m.exec(output)?.[1],
        );
        return line.split(" ").map(Number);
      },
    };
  }

  /** Whoever is in a session that a run began: also those who have another mark, or none. */
  #inSessions(): number[] {
    return processIds().filter((pid) => {
      const session = readProcess(pid)?.session;
      if (session === undefined || !this.#started.has(session)) return false;
      const leader = readProcess(session);
      return leader === undefined || leader.startTicks === this.#started.get(session);
    });
  }

  /** Fails if something is left, or if the exit is not noticed. */
  async end(run: Run): Promise<void> {
    const left = await run.tree.kill(5_000);
    if (left.length > 0) throw new Error(`left: ${left.map(({ pid }) => pid).join(", ")}`);
    await within("the exit", run.exit);
  }
}
