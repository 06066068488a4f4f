// A door: the whole screen for one command, which leaves the terminal as it found it whatever happens.

import { writeSync } from "node:fs";

const ENTER = "\x1b[?1049h\x1b[?25l"; // the other screen, no cursor
const LEAVE = "\x1b[?25h\x1b[?1049l";
const CTRL_C = "\x03";
const CTRL_Z = "\x1a";

/** Exit codes of those who are ended by a signal. */
const SIGNAL_CODES = { SIGTERM: 143, SIGHUP: 129 } as const;

export interface FullScreen {
  readonly columns: number;
  readonly rows: number;
  /** Replaces what is shown; what does not fit is cut. */
  draw(lines: readonly string[]): void;
  /** Gives the terminal back; a second call does nothing. */
  leave(): void;
}

/** Takes the screen of this process. `onKey` gets each key, `onResize` is told of another size. */
export function takeScreen(onKey: (key: string) => void, onResize: () => void): FullScreen {
  const { stdin, stdout } = process;
  let isTaken = false;
  const enter = (): void => {
    isTaken = true;
    if (stdin.isTTY) stdin.setRawMode(true);
    writeSync(1, ENTER);
  };
  const giveBack = (): void => {
    if (!isTaken) return;
    isTaken = false;
    try {
      if (stdin.isTTY) stdin.setRawMode(false);
      writeSync(1, LEAVE);
    } catch {
      // the terminal is gone
    }
  };
  const onData = (data: Buffer): void => {
    for (const key of data.toString()) {
      if (key === CTRL_Z) {
        giveBack();
        process.kill(process.pid, "SIGSTOP"); // goes on here after SIGCONT
        enter();
        onResize();
      } else if (key === CTRL_C) process.kill(process.pid, "SIGINT");
      else onKey(key);
    }
  };
  const ended = (signal: keyof typeof SIGNAL_CODES) => (): void => {
    giveBack();
    process.exit(SIGNAL_CODES[signal]);
  };
  const onTerm = ended("SIGTERM");
  const onHangUp = ended("SIGHUP");
  process.on("exit", giveBack);
  process.on("SIGTERM", onTerm);
  process.on("SIGHUP", onHangUp);
  stdout.on("resize", onResize);
  if (stdin.isTTY) stdin.on("data", onData);
  enter();
  return {
    get columns() {
      return stdout.columns || 80;
    },
    get rows() {
      return stdout.rows || 24;
    },
    draw(lines) {
      if (!isTaken) return;
      const shown = lines.slice(0, this.rows).map((line) => `${line}\x1b[K`);
      stdout.write(`\x1b[H${shown.join("\n")}\x1b[J`); // "\n" goes to the line's beginning also now
    },
    leave() {
      giveBack();
      process.off("exit", giveBack);
      process.off("SIGTERM", onTerm);
      process.off("SIGHUP", onHangUp);
      stdout.off("resize", onResize);
      stdin.off("data", onData);
      stdin.pause();
      stdin.unref();
    },
  };
}
