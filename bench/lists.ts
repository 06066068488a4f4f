// Rows of `ps`: the whole process, from its start to its end, against a bare program that asks the
// same daemon the same question and prints the same table. See `lister.ts`.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import { newInstanceId } from "../src/model.ts";
import { buildProgram, DaemonProcess } from "./daemon.ts";
import { writeIdler } from "./keepers.ts";
import type { Row } from "./row.ts";
import { median, type Round, type Stage } from "./stage.ts";

const LISTER = "bench/lister.ts";

/** A daemon that keeps so many instances. */
async function startFull(folder: string, count: number): Promise<DaemonProcess> {
  const path = writeIdler(folder);
  const daemon = await DaemonProcess.start(folder);
  const ids = Array.from({ length: count }, () => newInstanceId());
  await daemon.requestAll(
    ids.map((id, i) => ({
      kind: "Add",
      id,
      path,
      settings: { name: `bench-${String(i).padStart(3, "0")}` },
    })),
  );
  await daemon.requestAll(ids.map((id) => ({ kind: "Start", id, priority: undefined })));
  return daemon;
}

/** A table without the column that changes with time. */
function withoutUptime(table: string): string {
  const lines = table.split("\n");
  const [head = ""] = lines;
  const [begin, end] = [head.indexOf("UPTIME"), head.indexOf("RESTARTS")];
  return lines.map((line) => line.slice(0, begin) + line.slice(end)).join("\n");
}

class ListStage implements Stage {
  readonly #command: readonly string[];
  readonly #check: (table: string) => void;
  readonly #daemon: DaemonProcess | undefined;

  constructor(
    command: readonly string[],
    check: (table: string) => void,
    daemon: DaemonProcess | undefined,
  ) {
    this.#command = command;
    this.#check = check;
    this.#daemon = daemon;
  }

  async run(count: number): Promise<Round> {
    const times: number[] = [];
    let bytes = 0;
    let crc = 0;
    for (let i = 0; i < count; i++) {
      const begin = performance.now();
      const { stdout, exitCode } = Bun.spawnSync({
        cmd: [...this.#command],
        stdio: ["ignore", "pipe", "inherit"],
      });
      times.push(performance.now() - begin);
      if (exitCode !== 0) throw new Error(`${this.#command.join(" ")} ended with ${exitCode}`);
      const table = withoutUptime(stdout.toString());
      this.#check(table);
      bytes += stdout.length;
      crc = crc32(table, crc);
    }
    return { elapsedMs: median(times), count, bytes, crc, p50: 0, p99: 0 };
  }

  async audit(): Promise<number> {
    return 0;
  }

  async close(): Promise<void> {
    await this.#daemon?.stop();
  }
}

function list(key: string, name: string, isBuilt: boolean): Row {
  /** Of the daemon that both ask. */
  let path = "";
  /** What was printed first, and both are to print. */
  let wanted = "";
  const check = (table: string): void => {
    wanted ||= table;
    if (table !== wanted) throw new Error(`A table is\n${table}\ninstead of\n${wanted}`);
  };
  return {
    key,
    figures: [{ name, unit: "ms", target: 1.5, read: ({ elapsedMs }) => elapsedMs }],
    count: 15,
    smokeCount: 1,
    runIn: 0,
    open: (kind, { folder }, isSmoke) => {
      if (kind === "direct") return undefined;
      const open = async (): Promise<Stage> => {
        mkdirSync(folder);
        const ours = isBuilt ? "src/main.ts" : "src/cli.ts";
        const source = kind === "ours" ? ours : LISTER;
        const command = isBuilt
          ? [await buildProgram(folder, source)]
          : [process.execPath, join(import.meta.dir, "..", source)];
        if (kind === "bare") return new ListStage([...command, path], check, undefined);
        const daemon = await startFull(folder, isSmoke ? 10 : 100);
        ({ path } = daemon);
        return new ListStage([...command, "--socket", path, "ps"], check, daemon);
      };
      return open();
    },
  };
}

export const LISTS: readonly Row[] = [
  list("ps", "ps of 100 instances", true),
  list("ps-source", "ps of 100 instances, from source", false),
];
