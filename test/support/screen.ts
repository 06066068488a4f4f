// The command line at a real pseudo-terminal: its size, its keys, its signals, and what the screen shows.

import { join } from "node:path";

import { until, within } from "./wire.ts";

const CLI = join(import.meta.dir, "../../src/cli.ts");

export interface ScreenOptions {
  readonly columns?: number;
  readonly rows?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Where it is started. */
  readonly folder?: string;
  /** A shell command in whose place the program is "$@". */
  readonly within?: string;
}

/** A program that has a terminal to itself. */
export class Screen implements AsyncDisposable {
  /** Everything that was written to the terminal, with what drives it. */
  raw = "";
  readonly #process: Bun.Subprocess;
  readonly #terminal: Bun.Terminal;

  constructor(argv: readonly string[], options: ScreenOptions = {}) {
    const { columns = 80, rows = 24, env = {}, folder, within: shell } = options;
    const words = [process.execPath, CLI, ...argv];
    const decoder = new TextDecoder();
    this.#process = Bun.spawn({
      cmd: shell === undefined ? words : ["sh", "-c", shell, "sh", ...words],
      ...(folder === undefined ? {} : { cwd: folder }),
      env: { PATH: process.env["PATH"] ?? "", TERM: "xterm-256color", ...env },
      terminal: {
        cols: columns,
        rows,
        data: (_terminal, bytes) => {
          this.raw += decoder.decode(bytes, { stream: true });
        },
      },
    });
    this.#terminal = this.#process.terminal as Bun.Terminal;
  }

  /** What a person reads: the lines without colours, each as it was written last. */
  get lines(): string[] {
    const lines = Bun.stripANSI(this.raw).split("\r\n");
    return lines.map((line) => line.split("\r").at(-1)?.trimEnd() ?? "");
  }

  /** Waits until a line matches, and returns the match. */
  shows(pattern: RegExp): Promise<RegExpExecArray> {
    return until(
      () => `the screen shows ${pattern}, and it is ${JSON.stringify(this.raw.slice(-2_000))}`,
      () => {
        for (const line of this.lines) {
          const match = pattern.exec(line);
          if (match !== null) return match;
        }
        return undefined;
      },
    );
  }

  /** Gives it another size. */
  resize(columns: number, rows: number): void {
    this.#terminal.resize(columns, rows);
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** Types on its keyboard; "\x03" is Ctrl-C. */
  type(keys: string): void {
    this.#terminal.write(keys);
  }

  /** Waits for its end; returns the exit code. */
  async ended(): Promise<number> {
    const code = await within("the program ends", this.#process.exited);
    await until("the terminal has told all", async () => {
      const before = this.raw.length;
      await Bun.sleep(10); // the end of a pseudo-terminal has no event of its own
      return before === this.raw.length;
    });
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.exited;
    this.#terminal.close();
  }
}

/** How a command ended that wrote into pipes. */
export interface Piped {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A command as a script runs it. */
export async function piped(
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
  folder: string = process.cwd(),
): Promise<Piped> {
  const child = Bun.spawn({
    cmd: [process.execPath, CLI, ...argv],
    cwd: folder,
    env: { PATH: process.env["PATH"] ?? "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, err] = await within(
    `"${argv.join(" ")}" ends`,
    Promise.all([child.stdout.text(), child.stderr.text()]),
  );
  return { code: await child.exited, out, err };
}
