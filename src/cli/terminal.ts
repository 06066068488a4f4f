// The door of the command line to its process: standard streams, environment, Ctrl-C, the end.
//
// Everything else in `cli/` takes a `Terminal`, so that a test can be one.

import { DEADLINES, type Deadlines } from "../client.ts";
import { OrchestratorError } from "../errors.ts";
import { outputClosed, writeOutput } from "../files/stdout.ts";
import { SAME_KEY_MS } from "../limits.ts";
import type { FullScreen } from "./fullscreen.ts";

export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The user's working folder. @throws `io` if it was removed */
  readonly folder: string;
  /** Whether a person looks at standard output, and at standard error. */
  readonly outputIsScreen: boolean;
  readonly reportIsScreen: boolean;
  /** Width of the screen that standard output is; undefined away from one. */
  readonly columns: number | undefined;
  /** Width and height of the one that standard error is. */
  readonly reportColumns: number | undefined;
  readonly reportRows: number | undefined;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Whether a person can be asked. */
  readonly canAsk: boolean;
  readonly deadlines: Deadlines;
  /** Resolves at Ctrl-C. */
  readonly interrupted: Promise<void>;
  /**
   * Writes to standard output; settles when the system has taken it.
   * @throws `ClosedPipe`, or `io` if it cannot be written
   */
  write(data: string | Uint8Array): Promise<void>;
  /** Writes to standard error. */
  report(text: string): void;
  /** Asks on standard error and returns the line that is typed; empty at its end. */
  ask(question: string): Promise<string>;
  /** Takes the whole screen; only where standard output is one. */
  fullScreen(onKey: (key: string) => void, onResize: () => void): Promise<FullScreen>;
  /** Resolves when standard output has lost its reader, as far as the system can tell. */
  outputClosed(): Promise<void>;
  /** Lets go of the process, so that it ends. */
  release(): void;
}

/** Of a screen that does not tell its size. */
export const DEFAULT_COLUMNS = 80;
export const DEFAULT_ROWS = 24;

/** From the end of a command to the end of its process, if a connection or look-up still hangs. */
const EXIT_MS = 50;

/** What starting and ending the process takes of the time in which a failure is to be reported. */
const START_AND_EXIT_MS = 200;

/** What `node:tty` is built on. That takes 3 ms to load, and the C library by `bun:ffi` 1 ms. */
interface TtyWrap {
  isTTY(fd: number): boolean;
}

/** Tells of a descriptor whether it is a terminal. */
function terminalTest(): (fd: number) => boolean {
  const { binding } = process as { binding?(name: "tty_wrap"): Partial<TtyWrap> };
  return binding?.("tty_wrap").isTTY ?? process.getBuiltinModule("node:tty").isatty;
}

/** The terminal of this process. */
export function processTerminal(): Terminal {
  const interrupted = Promise.withResolvers<void>();
  let interruptedMs: number | undefined;
  const onInterrupt = (): void => {
    const now = performance.now();
    interruptedMs ??= now;
    interrupted.resolve();
    // What is told at the end is told, unless somebody is in a hurry.
    if (now - interruptedMs > SAME_KEY_MS) process.exit(130);
  };
  process.on("SIGINT", onInterrupt);
  const screen = process.env["TERM"] !== "dumb";
  const isTerminal = terminalTest();
  const [outputIsScreen, reportIsScreen] = [isTerminal(1), isTerminal(2)];
  let isReporting = false;
  /** Texts for standard error that the system has not taken yet. */
  let untaken = 0;
  let allTaken: (() => void) | undefined;
  let fullScreen: FullScreen | undefined;
  return {
    env: process.env,
    get folder() {
      try {
        return process.cwd();
      } catch (cause) {
        const hint = "it was removed: go to one that is there";
        throw new OrchestratorError("io", "Cannot find the current folder", { cause, hint });
      }
    },
    outputIsScreen: screen && outputIsScreen,
    reportIsScreen: screen && reportIsScreen,
    // The streams of `process` take longer to load than a command takes: only screens need them.
    get columns() {
      return outputIsScreen ? process.stdout.columns || undefined : undefined;
    },
    get reportColumns() {
      return reportIsScreen ? process.stderr.columns || undefined : undefined;
    },
    get reportRows() {
      return reportIsScreen ? process.stderr.rows || undefined : undefined;
    },
    now: Date.now,
    canAsk: reportIsScreen && isTerminal(0),
    deadlines: {
      ...DEADLINES,
      connectMs: DEADLINES.connectMs - START_AND_EXIT_MS,
      answerMs: DEADLINES.answerMs - START_AND_EXIT_MS,
    },
    interrupted: interrupted.promise,
    async write(data) {
      if (data.length > 0) await writeOutput(data);
    },
    report(text) {
      if (!isReporting) process.stderr.on("error", () => {}); // nobody is left to be told
      isReporting = true;
      untaken++;
      process.stderr.write(text, () => --untaken === 0 && allTaken?.());
    },
    ask: readAnswer,
    async fullScreen(onKey, onResize) {
      const { takeScreen } = await import("./fullscreen.ts");
      fullScreen = takeScreen(onKey, onResize);
      return fullScreen;
    },
    outputClosed,
    release() {
      fullScreen?.leave();
      process.off("SIGINT", onInterrupt);
      const end = (): void => void setTimeout(() => process.exit(), EXIT_MS).unref();
      // A pipe takes 64 KiB; what is behind that waits for its reader, as standard output does.
      if (untaken === 0 || interruptedMs !== undefined) end();
      else allTaken = end;
    },
  };
}

async function readAnswer(question: string): Promise<string> {
  process.stderr.write(question);
  const { promise, resolve } = Promise.withResolvers<string>();
  const input = process.stdin;
  const onData = (data: Buffer): void => {
    input.pause(); // what comes behind the line is the answer to another question
    const end = data.indexOf("\n") + 1 || data.length;
    if (end < data.length) input.unshift(data.subarray(end));
    resolve(data.toString("utf8", 0, end));
  };
  const onEnd = (): void => {
    process.stderr.write("\n"); // a person who types Ctrl-D ends no line
    resolve("");
  };
  if (input.readableEnded) onEnd();
  else input.once("data", onData).once("end", onEnd);
  input.ref();
  input.resume(); // an earlier question has paused it
  const answer = await promise;
  input.off("data", onData).off("end", onEnd);
  input.pause();
  input.unref();
  return answer.trim();
}
