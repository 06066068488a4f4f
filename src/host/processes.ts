// A door: the process table, from /proc. Who runs, as whose child, in which session, with which mark.
//
// A process is told apart by its pid and its start time, never by its pid alone: nobody is signalled
// whose start time is another than the one that was seen. Decides nothing about whom to signal.

import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
} from "node:fs";

import { systemCode } from "../errors.ts";
import {
  MAX_EXEC_LOOKS,
  MAX_PARENTS_LOOK,
  MAX_TABLE_LOOKS,
  TABLE_SLICE_MS,
  YOUNG_PROCESS_MS,
} from "../limits.ts";

/** The variable that every process of a run inherits: `<id of the daemon's run>.<number>`. */
export const MARK_VARIABLE = "VEECLE_RUNTIME_RUN";

/** One process, as it was when it was looked at. */
export interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  /** When it began, in clock ticks since the boot. With the pid, its identity. */
  readonly startTicks: number;
  /** One letter: `R`, `S`, `D`, `T` for stopped, `Z` for one that has ended and was not collected. */
  readonly state: string;
  /** The first 15 bytes of its name, for messages. */
  readonly command: string;
  /** What `MARK_VARIABLE` was when its program began, if that can be read. */
  readonly mark: string | undefined;
}

/** What a process is told apart by. */
export type ProcessIdentity = Pick<ProcessEntry, "pid" | "startTicks">;

/** What became of a signal: sent, nobody there any more, or not ours to signal. */
export type SignalResult = "sent" | "gone" | "denied";

/** What a process uses. */
export interface Resources {
  /** Since its start. */
  readonly uptimeMs: number;
  /** In user and kernel mode, with the children that it has waited for. */
  readonly cpuMs: number;
  readonly residentBytes: number;
  /** Undefined if they are not ours to see. */
  readonly openFiles: number | undefined;
  readonly threads: number;
}

/** What the kernel calls a clock tick towards programs: 100 a second on every machine Bun runs on. */
export const TICK_MS = 10;

/** The id of this boot; pids and start times of another one mean nothing. */
export function bootId(): string | undefined {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return undefined;
  }
}

/**
 * Looks at one process, without its mark; undefined if there is none with this pid.
 * @throws the system's error if there is no way to look
 */
export function readProcess(pid: number): Omit<ProcessEntry, "mark"> | undefined {
  const words = readStat(pid);
  return words && entryOf(pid, words);
}

function entryOf(pid: number, words: readonly string[]): Omit<ProcessEntry, "mark"> {
  const [command, state, parent, group, session] = words as [
    string,
    string,
    string,
    string,
    string,
  ];
  // The first thread of a program may have ended while others go on: that is no zombie.
  const hasEnded = state === "X" || (state === "Z" && Number(words[18]) <= 1);
  return {
    pid,
    parent: Number(parent),
    group: Number(group),
    session: Number(session),
    startTicks: Number(words[20]),
    state: hasEnded ? "Z" : state === "Z" ? "S" : state,
    command,
  };
}

/** Signals a process if it is still the one that was seen. */
export function signalProcess(
  { pid, startTicks }: ProcessIdentity,
  signal: NodeJS.Signals,
): SignalResult {
  const found = readProcess(pid);
  if (found === undefined || found.startTicks !== startTicks || found.state === "Z") return "gone";
  try {
    process.kill(pid, signal);
    return "sent";
  } catch (error) {
    return systemCode(error) === "EPERM" ? "denied" : "gone";
  }
}

/** The mark of a process as it was when its program began; undefined: none, or not ours to see. */
export function readMark(pid: number): string | undefined {
  try {
    return findMark(readFileSync(`/proc/${pid}/environ`));
  } catch (error) {
    return hidden(error);
  }
}

/** What a process uses now; undefined if it is not the one that was seen. */
export function readResources({ pid, startTicks }: ProcessIdentity): Resources | undefined {
  const words = readStat(pid);
  if (words === undefined || Number(words[20]) !== startTicks) return undefined;
  const status = readText(`/proc/${pid}/status`);
  const ticks = words.slice(12, 16).reduce((sum, word) => sum + Number(word), 0);
  return {
    uptimeMs: Math.max(uptimeMs() - startTicks * TICK_MS, 0),
    cpuMs: ticks * TICK_MS,
    residentBytes: Number(/^VmRSS:\s*([0-9]+) kB$/m.exec(status)?.[1] ?? 0) * 1024,
    openFiles: countEntries(`/proc/${pid}/fd`),
    threads: Number(words[18]),
  };
}

type Marks = Map<number, Pick<ProcessEntry, "startTicks" | "mark">>;

/** All processes but this one. */
export class ProcessTable {
  /** Marks by pid, of processes that will hardly change theirs. */
  #marks: Marks = new Map();
  readonly #buffer: Buffer = Buffer.allocUnsafe(64 * 1024);
  /** The snapshot that has been asked for and has not begun. */
  #next: Promise<readonly ProcessEntry[]> | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #listsChildren: boolean | undefined;
  /** Children by parent, for this turn of the event loop. */
  #families: ReadonlyMap<number, readonly number[]> | undefined;

  /** `listsChildren`: whether the kernel was built with CONFIG_PROC_CHILDREN; left out: looks. */
  constructor(listsChildren?: boolean) {
    this.#listsChildren = listsChildren;
  }

  /**
   * Who has been started by a process and is there still; at once. Where the kernel does not list
   * them, all who ask in one turn of the event loop share a look at the processes.
   */
  childrenOf(pid: number): readonly number[] {
    this.#listsChildren ??= existsSync(`/proc/self/task/${process.pid}/children`);
    if (this.#listsChildren) return listChildren(pid);
    if (this.#families === undefined) {
      this.#families = readFamilies();
      setImmediate(() => (this.#families = undefined));
    }
    return this.#families.get(pid) ?? [];
  }

  /**
   * Every process but this one, zombies included. The look began after it was asked for; those who
   * ask in one turn of the event loop, or while another look is under way, share one.
   * @throws the system's error if there is no way to look
   */
  snapshot(): Promise<readonly ProcessEntry[]> {
    this.#next ??= this.#begin();
    return this.#next;
  }

  async #begin(): Promise<readonly ProcessEntry[]> {
    await this.#last;
    await nextTurn();
    this.#next = undefined;
    const snapshot = this.#read();
    this.#last = snapshot.catch(() => {});
    return snapshot;
  }

  /** Looks again for what was forked during the look, so that no chain of forks runs ahead of it. */
  async #read(): Promise<readonly ProcessEntry[]> {
    const entries: ProcessEntry[] = [];
    /** Those that are about to run another program, by their place in `entries`. */
    let changing: number[] = [];
    const seen = new Set([process.pid]);
    const marks: Marks = new Map();
    const nowMs = uptimeMs();
    let turnEnd = performance.now() + TABLE_SLICE_MS;
    for (let look = 0; look < MAX_TABLE_LOOKS; look++) {
      const pids = listPids().filter((pid) => !seen.has(pid));
      if (pids.length === 0) break;
      for (const pid of pids) {
        seen.add(pid);
        const words = readStat(pid);
        if (words !== undefined) {
          const entry = entryOf(pid, words);
          const isKernel = (Number(words[7]) & PF_KTHREAD) !== 0;
          const mark = isKernel ? undefined : this.#mark(entry, nowMs, marks);
          if (mark === null) changing.push(entries.length);
          entries.push({ ...entry, mark: mark ?? undefined });
        }
        if (performance.now() < turnEnd) continue;
        await nextTurn();
        turnEnd = performance.now() + TABLE_SLICE_MS;
      }
    }
    for (let look = 0; changing.length > 0 && look < MAX_EXEC_LOOKS; look++) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      changing = changing.filter((place) => {
        const entry = entries[place] as ProcessEntry;
        const mark = this.#mark(entry, nowMs, marks);
        entries[place] = { ...entry, mark: mark ?? undefined };
        return mark === null;
      });
    }
    this.#marks = marks;
    return entries;
  }

  /**
   * The mark of a process, from memory if it is known; what may be kept goes into `marks`. Null while
   * it is about to run another program, and shows nothing.
   */
  #mark(
    { pid, parent, startTicks, state }: Omit<ProcessEntry, "mark">,
    nowMs: number,
    marks: Marks,
  ): string | undefined | null {
    const known = this.#marks.get(pid);
    if (known?.startTicks === startTicks) {
      marks.set(pid, known);
      return known.mark;
    }
    if (state === "Z") return undefined;
    const mark = this.#readMark(pid);
    if (mark === null) return null;
    // Between fork and exec a child still shows the environment of its parent, that is of us.
    const isSettled = nowMs - startTicks * TICK_MS > YOUNG_PROCESS_MS && parent !== process.pid;
    if (isSettled) marks.set(pid, { startTicks, mark });
    return mark;
  }

  #readMark(pid: number): string | undefined | null {
    try {
      const path = `/proc/${pid}/environ`;
      let length = readInto(path, this.#buffer);
      if (length === 0) {
        // Who has arguments has a program: then it has no environment, or has it by now.
        if (readInto(`/proc/${pid}/cmdline`, this.#buffer) === 0) return null;
        length = readInto(path, this.#buffer);
      }
      return length < this.#buffer.length
        ? findMark(this.#buffer.subarray(0, length))
        : findMark(readFileSync(path));
    } catch (error) {
      return hidden(error);
    }
  }
}

/** A thread of the kernel, in the flags of `/proc/PID/stat`; from include/linux/sched.h. */
const PF_KTHREAD = 0x0020_0000;

const NEEDLE: Buffer = Buffer.from(`${MARK_VARIABLE}=`);

/** The mark in an environment: `name=value` entries, each with a zero behind it. */
function findMark(environ: Buffer): string | undefined {
  for (let at = environ.indexOf(NEEDLE); at >= 0; at = environ.indexOf(NEEDLE, at + 1)) {
    if (at > 0 && environ[at - 1] !== 0) continue; // within another value
    const end = environ.indexOf(0, at);
    return environ.toString("latin1", at + NEEDLE.length, end < 0 ? environ.length : end);
  }
  return undefined;
}

const STAT: Buffer = Buffer.allocUnsafe(4_096);

/**
 * `/proc/PID/stat` as words: the name, then the fields from 3 (state) on, each at its number less 2.
 * The name stands in parentheses and may hold any of them.
 */
function readStat(pid: number): string[] | undefined {
  let length: number;
  try {
    length = readInto(`/proc/${pid}/stat`, STAT);
  } catch (error) {
    return hidden(error);
  }
  const text = STAT.toString("utf8", 0, length);
  const end = text.lastIndexOf(")");
  if (end < 0) return undefined;
  const words = text.slice(end + 2).split(" ", 20);
  words.unshift(text.slice(text.indexOf("(") + 1, end));
  return words;
}

/** Of a process that ended, or is not ours to see. @throws whatever else kept us from looking */
function hidden(error: unknown): undefined {
  if (["ENOENT", "ESRCH", "EACCES", "EPERM"].includes(systemCode(error) ?? "")) return undefined;
  throw error; // out of file descriptors, say: that must not pass for "nobody is there"
}

function readInto(path: string, buffer: Buffer): number {
  const fd = openSync(path, "r");
  try {
    return readSync(fd, buffer, 0, buffer.length, null);
  } finally {
    closeSync(fd);
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function countEntries(path: string): number | undefined {
  try {
    return readdirSync(path).length;
  } catch {
    return undefined;
  }
}

/** As the kernel tells them: for each thread. */
function listChildren(pid: number): number[] {
  try {
    const tasks = `/proc/${pid}/task`;
    const isAlone = statSync(tasks).nlink === 3; // of the folder, of itself, of one thread
    const threads = isAlone ? [pid] : readdirSync(tasks);
    return threads.flatMap((thread) => listChildrenOf(`${tasks}/${thread}/children`));
  } catch {
    return []; // it has ended, or is not ours to see
  }
}

function listChildrenOf(path: string): number[] {
  try {
    const length = readInto(path, STAT);
    if (length === 0) return [];
    const text =
      length < STAT.length ? STAT.toString("latin1", 0, length) : readFileSync(path, "latin1");
    return text.trimEnd().split(" ").map(Number);
  } catch {
    return []; // this thread has ended
  }
}

/** Children by parent, of the processes with the greatest numbers. */
function readFamilies(): Map<number, number[]> {
  const families = new Map<number, number[]>();
  const pids = listPids().sort((a, b) => b - a);
  for (const pid of pids.slice(0, MAX_PARENTS_LOOK)) {
    const parent = parentOf(pid);
    if (parent === undefined) continue;
    const children = families.get(parent);
    if (children === undefined) families.set(parent, [pid]);
    else children.push(pid);
  }
  return families;
}

/** Undefined if it has ended, or nobody can look: then a stop goes on without. */
function parentOf(pid: number): number | undefined {
  try {
    return readProcess(pid)?.parent;
  } catch {
    return undefined;
  }
}

function listPids(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number);
}

/** Time since the boot, on the clock that start times are told by. */
function uptimeMs(): number {
  return Number.parseFloat(readText("/proc/uptime")) * 1_000;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
