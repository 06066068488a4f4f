// Stages of output: a program that prints as fast as it can, until it has printed everything.
//
//   ours  printer ──pipe──► orchestrator ──► its files      bare  printer ──pipe──► keeper ──► files
//
// Afterwards the files must hold the last lines, none missing between the first and the last of them
// but those of which a note says so.

import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { newInstanceId } from "../src/model.ts";
import { DaemonProcess } from "./daemon.ts";
import { checkLines, LINE_BYTES, type LinesFound } from "./numbered.ts";
import type { Helper } from "./side.ts";
import type { Place, Round, Stage } from "./stage.ts";

const PRINTER = join(import.meta.dir, "printer.ts");
const KEEPER = join(import.meta.dir, "keeper.ts");
const ROUND_MS = 60_000;
const WRITTEN_MS = 20_000;

export class PrintStage implements Stage {
  readonly #helper: Helper;
  readonly #files: string;
  readonly #end: () => Promise<void>;
  #printed = 0;
  #dropped = 0;

  private constructor(helper: Helper, files: string, end: () => Promise<void>) {
    this.#helper = helper;
    this.#files = files;
    this.#end = end;
  }

  static async open(kind: "ours" | "bare", { folder, side }: Place): Promise<PrintStage> {
    mkdirSync(folder);
    const name = join(folder, "printer");
    const command = [process.execPath, PRINTER, side.path, name];
    if (kind === "bare") {
      const files = join(folder, "files");
      const keeper = Bun.spawn({
        cmd: [process.execPath, KEEPER, files, ...command],
        stdio: ["ignore", "ignore", "inherit"],
      });
      return new PrintStage(await side.helper(name), files, async () => {
        keeper.kill("SIGTERM");
        await keeper.exited;
      });
    }
    const path = `${name}.sh`;
    const words = command.map((word) => `'${word}'`).join(" ");
    writeFileSync(path, `#!/bin/sh\nexec ${words}\n`, { mode: 0o700 });
    const daemon = await DaemonProcess.start(folder);
    const id = newInstanceId();
    await daemon.requestAll([
      { kind: "Add", id, path, settings: {} },
      { kind: "Start", id, priority: undefined },
    ]);
    const states = join(folder, "state", "veecle-orchestrator");
    const files = join(states, readdirSync(states)[0] as string, "output", id);
    return new PrintStage(await side.helper(name), files, () => daemon.stop());
  }

  async run(count: number): Promise<Round> {
    const bytes = count * LINE_BYTES;
    const startedAt = performance.now();
    await this.#helper.ask({ kind: "send", bytes }, ROUND_MS);
    const elapsedMs = performance.now() - startedAt;
    this.#printed += count;
    const { crc, dropped } = await this.#written();
    this.#dropped = Math.max(this.#dropped, dropped);
    return { elapsedMs, count, bytes, crc, p50: 0, p99: 0 };
  }

  /** Lines that the files, after the worst round, say are missing. */
  async audit(): Promise<number> {
    return this.#dropped;
  }

  async close(): Promise<void> {
    await this.#end();
  }

  /** Looks until the last line is in the files. */
  async #written(): Promise<LinesFound> {
    let fault: unknown;
    for (const deadline = performance.now() + WRITTEN_MS; performance.now() < deadline;) {
      await Bun.sleep(20); // what is being written may be seen in part
      try {
        const found = checkLines(this.#files);
        if (found.last === this.#printed - 1) return found;
        fault = new Error(`The last line is ${found.last} instead of ${this.#printed - 1}`);
      } catch (error) {
        fault = error;
      }
    }
    throw fault;
  }
}
