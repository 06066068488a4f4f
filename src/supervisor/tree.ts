// The process tree of one run: who belongs to it, how it is signalled, and how all of it is ended.
//
// To a tree belong the process that we started, its session, whoever carries the run's mark in its
// environment, whatever those have started, and whoever was seen in the tree before. Forking,
// `setsid`, the end of a parent or a new environment alone do not lead out of it.

import type { Cgroup } from "../host/cgroup.ts";
import { OrchestratorError } from "../errors.ts";
import type { Host } from "../host.ts";
import {
  HELD_NUMBER_MS,
  MAX_FREEZE_LOOKS,
  MAX_NAMED_PROCESSES,
  MAX_REMEMBERED,
} from "../limits.ts";
import {
  type ProcessEntry,
  type ProcessIdentity,
  type Resources,
  TICK_MS,
} from "../host/processes.ts";

/** What a tree needs of the system. */
export type TreeHost = Pick<
  Host,
  | "signalGroup"
  | "signalProcess"
  | "readProcess"
  | "childrenOf"
  | "snapshot"
  | "resources"
  | "now"
  | "after"
>;

/** What tells a process that we started from every other one, also after the daemon was started anew. */
export interface RunIdentity {
  /** The number of its group and its session too. */
  readonly pid: number;
  /** Undefined if it was gone before anybody could look. */
  readonly startTicks: number | undefined;
  readonly mark: string;
}

/** What a tree is known by. */
export interface TreeRoot extends RunIdentity {
  readonly cgroup?: Cgroup | undefined;
}

/** A snapshot, found by what processes have in common. */
interface Index {
  readonly byPid: ReadonlyMap<number, ProcessEntry>;
  readonly byParent: ReadonlyMap<number, readonly ProcessEntry[]>;
  readonly bySession: ReadonlyMap<number, readonly ProcessEntry[]>;
  readonly byMark: ReadonlyMap<string, readonly ProcessEntry[]>;
}

const indexes: WeakMap<readonly ProcessEntry[], Index> = new WeakMap();

/** Of a snapshot; made once, however many trees share it. */
export function indexOf(snapshot: readonly ProcessEntry[]): Index {
  let index = indexes.get(snapshot);
  if (index === undefined) {
    index = {
      byPid: new Map(snapshot.map((entry) => [entry.pid, entry])),
      byParent: Map.groupBy(snapshot, ({ parent }) => parent),
      bySession: Map.groupBy(snapshot, ({ session }) => session),
      byMark: Map.groupBy(
        snapshot.filter(({ mark }) => mark !== undefined),
        ({ mark }) => mark as string,
      ),
    };
    indexes.set(snapshot, index);
  }
  return index;
}

/** Of a snapshot: those who are in a tree, zombies left out. Remembers whom it has seen. */
export class Members {
  /** Pid → start time of everybody who was in the tree at the last look. */
  #known: ReadonlyMap<number, number> = new Map();

  /** These were seen in the tree, whatever they will be known by later. */
  remember(entries: readonly Omit<ProcessEntry, "mark">[]): void {
    const seen = entries.map(({ pid, startTicks }): [number, number] => [pid, startTicks]);
    this.#known = new Map([...this.#known, ...seen]);
  }

  /** Who was in the tree at the last look, or was remembered since. */
  seen(): ProcessIdentity[] {
    return Array.from(this.#known, ([pid, startTicks]) => ({ pid, startTicks }));
  }

  /** `seeds` belong to the tree for sure; so does whoever comes from them. */
  find(index: Index, seeds: Iterable<ProcessEntry>): ProcessEntry[] {
    const members = new Map<number, ProcessEntry>();
    const open = [...seeds];
    for (const [pid, startTicks] of this.#known) {
      const entry = index.byPid.get(pid);
      if (entry?.startTicks === startTicks) open.push(entry);
    }
    for (let entry = open.pop(); entry !== undefined; entry = open.pop()) {
      if (members.has(entry.pid)) continue;
      members.set(entry.pid, entry);
      const { pid, session, startTicks } = entry;
      for (const child of index.byParent.get(pid) ?? []) {
        if (child.startTicks >= startTicks) open.push(child); // else the child of one who had this pid
      }
      if (session === pid) open.push(...(index.bySession.get(session) ?? []));
    }
    const living = [...members.values()].filter(({ state }) => state !== "Z");
    this.#known = new Map(living.map(({ pid, startTicks }) => [pid, startTicks]));
    return living.sort((a, b) => a.pid - b.pid);
  }
}

/** The tree of one run. */
export class Tree {
  readonly #host: TreeHost;
  readonly #root: TreeRoot;
  readonly #members: Members = new Members();
  /**
   * The number of our session is not given to anybody else while the session lasts. Once it is seen
   * empty, or led by another process, the number means nothing any more.
   */
  #isSessionOver = false;
  readonly #startedMs: number;
  /** Our process has ended: when the number was ours for sure, since some of ours held it still. */
  #heldMs: number | undefined;

  /** Of a process that was started just now. */
  constructor(host: TreeHost, root: TreeRoot) {
    this.#host = host;
    this.#root = root;
    this.#startedMs = host.now();
  }

  /** The process that we started has ended just now: its number may go to somebody else. */
  leaderExited(): void {
    this.#heldMs = this.#host.now();
  }

  /**
   * Remembers whoever descends from our process, at once: when that ends at a signal, a child that
   * has left its session and cleared its environment has nothing left to be known by.
   */
  remember(): void {
    const open = [this.#root.pid];
    const seen: Omit<ProcessEntry, "mark">[] = [];
    for (
      let pid = open.pop();
      pid !== undefined && seen.length < MAX_REMEMBERED;
      pid = open.pop()
    ) {
      for (const child of this.#host.childrenOf(pid)) {
        const entry = this.#host.readProcess(child);
        if (entry === undefined) continue;
        seen.push(entry);
        open.push(child);
      }
    }
    if (seen.length > 0) this.#members.remember(seen);
  }

  /**
   * Signals the process group, at once; false if there is none any more. Who has left the group is
   * not reached.
   * @throws `permission_denied` if none of it is ours to signal: a program may change its user
   */
  signal(signal: NodeJS.Signals): boolean {
    if (this.#isStrange()) return false;
    try {
      return this.#host.signalGroup(this.#root.pid, signal);
    } catch (cause) {
      throw new OrchestratorError(
        "permission_denied",
        `Cannot send ${signal} to process group ${this.#root.pid}`,
        { cause },
      );
    }
  }

  /**
   * Sends SIGKILL to the group, and to whoever was seen in the tree, at once: whoever is known by
   * nothing else is not found by those who come after us.
   * @throws `permission_denied` as `signal` does
   */
  strike(): void {
    for (const seen of this.#members.seen()) this.#host.signalProcess(seen, "SIGKILL");
    this.signal("SIGKILL");
  }

  /**
   * Whether nothing is left in the process group; at once. While a zombie is in it, the answer is no.
   * Who has left the group does not count: see `left`.
   */
  isGroupEmpty(): boolean {
    try {
      return !this.#host.signalGroup(this.#root.pid, 0) || this.#isStrange();
    } catch {
      return false; // there, and not ours to signal
    }
  }

  /** Everything of the tree that still runs, in order of pid. @throws if there is no way to look */
  async left(): Promise<ProcessEntry[]> {
    const nowMs = this.#host.now();
    const index = indexOf(await this.#host.snapshot());
    const { pid, mark, cgroup } = this.#root;
    const startTicks = this.#root.startTicks;
    const seeds = [...(index.byMark.get(mark) ?? [])];
    const leader = index.byPid.get(pid);
    const session = index.bySession.get(pid) ?? [];
    if (leader === undefined ? !this.#isHeldBy(session) : leader.startTicks !== startTicks) {
      this.#isSessionOver = true;
    }
    if (!this.#isSessionOver) {
      seeds.push(...session);
      if (this.#heldMs !== undefined) this.#heldMs = Math.max(this.#heldMs, nowMs);
    }
    for (const inside of cgroup?.pids() ?? []) {
      const entry = index.byPid.get(inside) ?? this.#host.readProcess(inside);
      if (entry !== undefined) seeds.push({ mark, ...entry });
    }
    return this.#members.find(index, seeds);
  }

  /** What lives in its control group now, if it has one. @throws if there is no way to look */
  #enclosed(): ProcessEntry[] {
    const { mark, cgroup } = this.#root;
    const entries = (cgroup?.pids() ?? []).flatMap((pid) => this.#host.readProcess(pid) ?? []);
    return entries.filter(({ state }) => state !== "Z").map((entry) => ({ mark, ...entry }));
  }

  /** Signals processes that a look has found, each only if it is the same still. */
  signalEach(entries: readonly ProcessEntry[], signal: NodeJS.Signals): void {
    for (const entry of entries) this.#host.signalProcess(entry, signal);
  }

  /**
   * Ends everything with SIGKILL, again and again until nothing is left. `onFound` hears of what was
   * there at first, if anything was.
   * @returns what is left
   */
  async kill(
    withinMs: number,
    onFound?: (entries: readonly ProcessEntry[]) => void,
  ): Promise<ProcessEntry[]> {
    let tell = onFound;
    const found = (entries: ProcessEntry[]): ProcessEntry[] => {
      if (entries.length > 0) {
        tell?.(entries);
        tell = undefined;
      }
      return entries;
    };
    try {
      if (tell !== undefined) found(this.#enclosed()); // what is killed before a look is not seen
    } catch {
      // There is no way to look now; the looks that follow tell of it, and try again.
    }
    this.#root.cgroup?.kill();
    return endAll(this.#host, withinMs, {
      find: async () => found(await this.left()),
      strike: (signal) => {
        try {
          this.signal(signal);
        } catch {
          // What is not ours to signal is in the list of what is left.
        }
      },
      isStruck: ({ group }) => group === this.#root.pid && !this.#isSessionOver,
    });
  }

  /** Nothing is left: removes its control group, if there is one. */
  release(): void {
    this.#root.cgroup?.remove();
  }

  /** What the process that we started uses, and all of the tree together. */
  async resources(): Promise<{
    processes: number;
    process: Resources | undefined;
    tree: Resources;
  }> {
    const { pid } = this.#root;
    const startTicks = this.#root.startTicks ?? -1;
    const members = await this.left();
    const used = members.flatMap((entry) => this.#host.resources(entry) ?? []);
    return {
      processes: used.length,
      process: this.#host.resources({ pid, startTicks }),
      tree: sumResources(used),
    };
  }

  /** Whether the number of our group may belong to somebody else by now. */
  #isStrange(): boolean {
    if (this.#isSessionOver) return true;
    if (this.#heldMs === undefined) return false; // until its end is told, its number is its own
    const leader = this.#host.readProcess(this.#root.pid);
    if (leader === undefined) return this.#host.now() > this.#heldMs + HELD_NUMBER_MS;
    this.#isSessionOver = leader.startTicks !== this.#root.startTicks;
    return this.#isSessionOver;
  }

  /** Whether a session without its leader is ours: somebody in it began while the number was ours. */
  #isHeldBy(session: readonly ProcessEntry[]): boolean {
    const startTicks = this.#root.startTicks;
    if (this.#heldMs === undefined || startTicks === undefined) return session.length > 0;
    const heldMs = this.#heldMs - this.#startedMs + HELD_NUMBER_MS;
    return session.some((entry) => entry.startTicks <= startTicks + heldMs / TICK_MS);
  }
}

/** What is to be ended. */
interface Target {
  find(): Promise<ProcessEntry[]>;
  /** Signals whole groups at once: the system lets no fork slip through. */
  strike(signal: NodeJS.Signals): void;
  isStruck(entry: ProcessEntry): boolean;
}

/**
 * Ends processes with SIGKILL until `find` finds none. Before anything dies, everything is made to
 * stand still: a frozen process neither forks, nor loses the parent by which it is found.
 * @returns what is left when the time is over
 */
export async function endAll(
  host: TreeHost,
  withinMs: number,
  target: Target,
): Promise<ProcessEntry[]> {
  const deadline = host.now() + withinMs;
  const frozen = new Map<number, number>();
  let pauseMs = 1;
  target.strike("SIGSTOP");
  for (;;) {
    try {
      const members = await freeze(host, target, frozen);
      if (members.length === 0) return [];
      target.strike("SIGKILL");
      for (const entry of members) {
        if (!target.isStruck(entry)) host.signalProcess(entry, "SIGKILL");
      }
      if (host.now() >= deadline) return await target.find();
    } catch (error) {
      target.strike("SIGKILL");
      if (host.now() >= deadline) throw error; // until then, there may be a way to look again
    }
    await new Promise<void>((resolve) => void host.after(pauseMs, resolve));
    pauseMs = Math.min(pauseMs * 2, 20);
  }
}

/** Stops what is found and not in `frozen`, until nothing new is found. @returns all that is found */
async function freeze(
  host: TreeHost,
  target: Target,
  frozen: Map<number, number>,
): Promise<ProcessEntry[]> {
  for (let look = 0; ; look++) {
    const members = await target.find();
    // Whether the number of a group is ours still may not be known before somebody has looked.
    if (look === 0 && members.length > 0) target.strike("SIGSTOP");
    const fresh = members.filter(
      (entry) => !target.isStruck(entry) && frozen.get(entry.pid) !== entry.startTicks,
    );
    if (fresh.length === 0 || look === MAX_FREEZE_LOOKS) return members;
    for (const entry of fresh) {
      host.signalProcess(entry, "SIGSTOP");
      frozen.set(entry.pid, entry.startTicks);
    }
  }
}

/** Processes in a message: `4711 (sleep), 4712 (sh)`. */
export function formatProcesses(entries: readonly ProcessEntry[]): string {
  const named = entries
    .slice(0, MAX_NAMED_PROCESSES)
    .map((entry) => `${entry.pid} (${entry.command})`);
  const more = entries.length - named.length;
  return named.join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** What processes use together; the longest of their times since the start. */
export function sumResources(all: readonly Resources[]): Resources {
  const sum = (of: (one: Resources) => number): number => all.reduce((n, one) => n + of(one), 0);
  return {
    uptimeMs: Math.max(0, ...all.map(({ uptimeMs }) => uptimeMs)),
    cpuMs: sum(({ cpuMs }) => cpuMs),
    residentBytes: sum(({ residentBytes }) => residentBytes),
    openFiles: all.some(({ openFiles }) => openFiles === undefined)
      ? undefined
      : sum(({ openFiles }) => openFiles as number),
    threads: sum(({ threads }) => threads),
  };
}
