// A door: processes, process groups, priorities, the clock and timers.
//
// Decides nothing. A process is started in a session of its own, so that the numbers of its group and
// its session are its pid. The process table is `processes.ts`; here it is part of what a supervisor
// needs of a system.

import { accessSync, closeSync, constants, openSync, readSync, statSync } from "node:fs";
import { setPriority } from "node:os";

import { descriptorLimit, nextDescriptor } from "./host/own.ts";
import { OrchestratorError, systemCode } from "./errors.ts";
import { type MemoryKills, MemoryWatch } from "./host/memory.ts";
import { openPipe, type OutputReader, type Pipe } from "./host/pipe.ts";
import type { Exit } from "./model.ts";
import {
  type ProcessEntry,
  type ProcessIdentity,
  ProcessTable,
  readMark,
  readProcess,
  readResources,
  type Resources,
  signalProcess,
  type SignalResult,
} from "./host/processes.ts";

export interface SpawnRequest {
  /** With a "/" as it is, otherwise looked up in `PATH` of `env`. */
  readonly path: string;
  readonly args?: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Working folder; the daemon's own if it is left out. */
  readonly cwd?: string | undefined;
  /** Folder of a control group that the process joins before it runs. */
  readonly cgroup?: string | undefined;
  /** Called once, never before `spawn` has returned. */
  onExit(exit: Exit): void;
  /**
   * Bytes of standard output and standard error; the chunk is the callee's to keep. That stream is not
   * read on before the promise settles, if there is one.
   */
  onOutput(stream: "stdout" | "stderr", chunk: Uint8Array): Promise<void> | undefined;
  /** Both streams ended; a grandchild may hold them open long after the exit. */
  onOutputEnd(): void;
}

/** A process that was started. */
export interface Spawned {
  readonly pid: number;
  /** With the pid, its identity; undefined if it had ended and was gone before anybody could look. */
  readonly startTicks: number | undefined;
  /** Stops reading its output. */
  releaseOutput(): void;
}

/** What the supervisor needs of a system. */
export interface Host {
  /** @throws `cannot_run` with the system's reason as its cause */
  spawn(request: SpawnRequest): Spawned;
  /**
   * Signals every process of a group; false if there is none. Signal 0 only asks.
   * @throws EPERM if none of them is ours to signal
   */
  signalGroup(pgid: number, signal: NodeJS.Signals | 0): boolean;
  /** Signals one process, if it is still the one that was seen. */
  signalProcess(process: ProcessIdentity, signal: NodeJS.Signals): SignalResult;
  /** One process as it is now, or undefined. @throws if there is no way to look */
  /** How many file descriptors this process may still open, by the number of the next one. */
  descriptorsLeft(): number;
  /** Who has been started by a process and lives; empty where the system does not tell. */
  childrenOf(pid: number): readonly number[];
  /** The mark of a process, of which it cannot rid itself but by another program. */
  readMark(pid: number): string | undefined;
  readProcess(pid: number): Omit<ProcessEntry, "mark"> | undefined;
  /** All processes but this one, in a look that began after it was asked for. */
  snapshot(): Promise<readonly ProcessEntry[]>;
  /** What a process uses, if it is still the one that was seen. */
  resources(process: ProcessIdentity): Resources | undefined;
  /** Whom the kernel has ended for want of memory since that was asked last, if anybody. */
  memoryKills(): MemoryKills | undefined;
  /** @throws the system's error */
  setPriority(pid: number, nice: number): void;
  /** Milliseconds on a clock that is never set. */
  now(): number;
  /** Milliseconds since the epoch, with a fraction. */
  wallMs(): number;
  /** Calls back once, with 0 in the next turn of the event loop; the returned function cancels. */
  after(ms: number, action: () => void): () => void;
}

/** The real system. `onFault` hears of callbacks that threw. */
export function systemHost(onFault: (error: unknown) => void): Host {
  const table = new ProcessTable();
  const limit = descriptorLimit();
  const now = (): number => performance.now();
  const memory = new MemoryWatch(now);
  return {
    descriptorsLeft: () => {
      try {
        return limit - nextDescriptor();
      } catch {
        return 0; // there is none
      }
    },
    spawn: (request) => spawn(request, onFault),
    signalGroup,
    signalProcess,
    childrenOf: (pid) => table.childrenOf(pid),
    readMark,
    readProcess,
    snapshot: () => table.snapshot(),
    resources: readResources,
    memoryKills: () => memory.look(),
    setPriority,
    now,
    wallMs: wallClock(),
    after: (ms, action) => {
      const guarded = (): void => {
        try {
          action();
        } catch (error) {
          onFault(error);
        }
      };
      if (ms === 0) {
        const turn = setImmediate(guarded); // a timer would wait for the next millisecond
        return () => clearImmediate(turn);
      }
      const timer = setTimeout(guarded, ms);
      return () => clearTimeout(timer);
    },
  };
}

function spawn(request: SpawnRequest, onFault: (error: unknown) => void): Spawned {
  const program = locate(request.path, request.env["PATH"] ?? "");
  const { cwd, cgroup } = request;
  if (cwd !== undefined) checkFolder(cwd, request.path);
  let isStarted = false;
  let early: Exit | undefined;
  let hasEnded = false;
  let startTicks: number | undefined;
  const exited = (exit: Exit): void => {
    hasEnded = true;
    if (!isStarted) early = exit;
    else request.onExit(exit);
  };
  let child: Bun.Subprocess<"ignore", "pipe" | number, "pipe" | number>;
  let [stderrPipe, stdoutPipe]: (Pipe | undefined)[] = [];
  try {
    // A reader reads at once. Were stderr's the later one, then of what a child prints between the two
    // the complaint would be first; so it is the earlier one, and is asked second if both have some.
    stderrPipe = openPipe();
    stdoutPipe = openPipe();
    child = Bun.spawn({
      cmd: [program, ...(request.args ?? [])],
      env: { ...request.env },
      ...(cwd === undefined ? {} : { cwd }),
      ...(cgroup === undefined ? {} : { cgroup }),
      stdin: "ignore",
      stdout: stdoutPipe?.end ?? "pipe",
      stderr: stderrPipe?.end ?? "pipe",
      detached: true,
      onExit: (_child, code, signal) => {
        exited({
          code: signal === null ? (code ?? undefined) : undefined,
          signal: signal === null ? undefined : String(signal),
        });
      },
    });
  } catch (error) {
    for (const pipe of [stderrPipe, stdoutPipe]) pipe?.reader.cancel().catch(onFault);
    throw new OrchestratorError("cannot_run", `Cannot run ${JSON.stringify(request.path)}`, {
      cause: explain(error, program),
    });
  } finally {
    for (const pipe of [stderrPipe, stdoutPipe]) if (pipe !== undefined) closeSync(pipe.end);
  }
  isStarted = true;
  if (early !== undefined) queueMicrotask(() => request.onExit(early as Exit));
  const stderr = stderrPipe?.reader ?? readerOf(child.stderr);
  const stdout = stdoutPipe?.reader ?? readerOf(child.stdout);
  const pumps = [
    pump(stdout, (chunk) => request.onOutput("stdout", chunk)),
    pump(stderr, (chunk) => request.onOutput("stderr", chunk)),
  ];
  Promise.all(pumps).then(() => request.onOutputEnd(), onFault);
  return {
    pid: child.pid,
    get startTicks() {
      // Later than at once, when the process has left the system's locks of a start; and again, if
      // there was no way to look.
      if (!hasEnded) startTicks ??= startOf(child.pid);
      return startTicks;
    },
    releaseOutput: () => {
      for (const reader of [stdout, stderr]) reader.cancel().catch(onFault);
    },
  };
}

/** Of a process that was just started: that the system has no way to look is no reason to lose it. */
function startOf(pid: number): number | undefined {
  try {
    return readProcess(pid)?.startTicks;
  } catch {
    return undefined;
  }
}

/** Of the sockets that Bun makes where there are no pipes. */
function readerOf(stream: unknown): OutputReader {
  return (stream as ReadableStream<Uint8Array<ArrayBuffer>>).getReader();
}

async function pump(
  reader: OutputReader,
  take: (chunk: Uint8Array) => Promise<void> | undefined,
): Promise<void> {
  for (;;) {
    const { done, value } = await reader.read();
    if (done || value === undefined) return;
    const room = take(value);
    if (room !== undefined) await room;
  }
}

/** The file that is run. @throws `cannot_run` if a bare name is not in `PATH` */
function locate(path: string, searchPath: string): string {
  if (path.includes("/")) return path;
  const found = Bun.which(path, { PATH: searchPath });
  if (found !== null) return found;
  throw new OrchestratorError("cannot_run", `Cannot run ${JSON.stringify(path)}`, {
    cause: new Error("no such program in PATH"),
  });
}

/** The system says of a bad working folder that the program does not exist. @throws `cannot_run` */
function checkFolder(cwd: string, path: string): void {
  let reason: unknown;
  try {
    if (statSync(cwd).isDirectory()) {
      accessSync(cwd, constants.X_OK);
      return;
    }
    reason = new Error("it is not a folder");
  } catch (error) {
    reason = error;
  }
  const cause = new Error(`Cannot enter the working folder ${JSON.stringify(cwd)}`, {
    cause: reason,
  });
  throw new OrchestratorError("cannot_run", `Cannot run ${JSON.stringify(path)}`, { cause });
}

/** What is no program, whatever its mode; undefined also of what cannot even be looked at. */
function misfit(path: string): string | undefined {
  try {
    const found = statSync(path);
    if (found.isFile()) return undefined;
    return found.isDirectory() ? "it is a folder" : "it is not a regular file";
  } catch {
    return undefined;
  }
}

/** The system's reason in words that name what is wrong with the file. */
function explain(error: unknown, path: string): unknown {
  switch (systemCode(error)) {
    case "ENOENT":
      if (statSync(path, { throwIfNoEntry: false }) === undefined) return error;
      return new Error(`${interpreterOf(path)} does not exist`);
    case "EACCES":
      return new Error(misfit(path) ?? barrier(path));
    case "ENOEXEC":
      return new Error("not a program that this machine can run");
    case "EAGAIN":
      return new Error("this user may have no more processes");
    case "ETXTBSY":
      return new Error("somebody has the file open to write to it");
    default:
      return error;
  }
}

/** What keeps us from running a file, as far as one can tell. */
function barrier(path: string): string {
  try {
    accessSync(path, constants.X_OK);
  } catch {
    return "permission denied (is it executable?)";
  }
  return `permission denied (${interpreterOf(path)} is no program, or its disk is mounted noexec)`;
}

/** What the first line of a script names, as the system reads it: a `\r` at its end is part of it. */
function interpreterOf(path: string): string {
  const unknown = "the interpreter or loader that it names";
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return unknown; // it may be run and not read
  }
  try {
    const start = Buffer.alloc(256); // as much as the system looks at
    const text = start.toString("utf8", 0, readSync(fd, start));
    const name = /^#![ \t]*([^ \t\n\0]+)/.exec(text)?.[1];
    return name === undefined ? unknown : `the interpreter ${JSON.stringify(name)} that it names`;
  } catch {
    return unknown;
  } finally {
    closeSync(fd);
  }
}

function signalGroup(pgid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-pgid, signal);
    return true;
  } catch (error) {
    if (systemCode(error) === "ESRCH") return false;
    throw error;
  }
}

/** The wall clock in milliseconds with a fraction, which follows when somebody sets the clock. */
export function wallClock(): () => number {
  let origin = performance.timeOrigin;
  return () => {
    const wall = Date.now();
    const time = origin + performance.now();
    if (time >= wall - 1 && time < wall + 2) return time;
    origin += wall - time;
    return wall;
  };
}
