// Other process managers, through their own tools: `bun run bench --peers [--smoke] [NAME…]`.
//
// The same programs are run by ours and by those that are installed; nothing is installed here. Every
// program makes a file when it runs, and is found by its path: all are measured from outside.

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Crew, GRACE_S, type Manager, MANAGERS } from "./managers.ts";
import { median } from "./stage.ts";
import { residentMiB } from "./vitals.ts";

/** How much is done of everything. */
interface Size {
  readonly programs: number;
  readonly rounds: number;
  readonly outputMiB: number;
}

const FULL: Size = { programs: 100, rounds: 5, outputMiB: 1024 };
const SMOKE: Size = { programs: 5, rounds: 1, outputMiB: 16 };

const WAIT_MS = 60_000;
/** What a manager is given to end what it does not own any more. */
const ORPHAN_MS = 1_000;
/** Younger processes are not started again at once by some. */
const SETTLE_MS = 1_500;
const idlers = (crew: Crew, count: number): string[] =>
  Array.from({ length: count }, (_, i) => crew.idler(`i${i}`));

const ms = (times: readonly number[]): string => `${median(times).toFixed(1)} ms`;

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/** The manager and what it keeps for itself, without the programs. */
function residentOf(manager: Manager, crew: Crew): number {
  const programs = new Set(crew.running());
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^[0-9]+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "latin1");
      const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {
      // it has ended meanwhile
    }
  }
  let sum = 0;
  const open = [manager.pid];
  for (let pid = open.pop(); pid !== undefined; pid = open.pop()) {
    if (programs.has(pid)) continue;
    sum += residentMiB(pid) || 0;
    open.push(...(children.get(pid) ?? []));
  }
  return sum;
}

/** Works through everything that is done with a hundred programs. */
async function hundred(manager: Manager, crew: Crew, size: Size): Promise<string[]> {
  const names = idlers(crew, size.programs);
  await manager.begin(crew, names);
  const [starts, stops, backs, looks]: number[][] = [[], [], [], []];
  let resident = Number.NaN;
  for (let round = 0; round < size.rounds; round++) {
    crew.forget(names);
    starts?.push(
      await timed(async () => {
        await manager.start();
        await crew.up(names, WAIT_MS);
      }),
    );
    await Bun.sleep(SETTLE_MS);
    looks?.push(await timed(() => manager.status()));
    const name = names[round] as string;
    const [pid] = crew.running(name);
    crew.forget([name]);
    backs?.push(
      await timed(async () => {
        process.kill(pid as number, "SIGKILL");
        await crew.up([name], WAIT_MS);
      }),
    );
    resident = residentOf(manager, crew);
    stops?.push(
      await timed(async () => {
        await manager.stop();
        await crew.down(WAIT_MS);
      }),
    );
  }
  return [
    ...[starts, backs, looks, stops].map((times) => ms(times as number[])),
    `${resident.toFixed(0)} MiB`,
  ];
}

/** What is left of a tree that forks away and ignores signals, after its stop. */
async function stubborn(manager: Manager, crew: Crew): Promise<string> {
  const name = crew.forker("tree");
  await manager.begin(crew, [name]);
  await manager.start();
  await crew.up([name, "leaf"], WAIT_MS);
  await manager.stop();
  for (const deadline = performance.now() + 2 * GRACE_S * 1_000; crew.running().length > 0;) {
    if (performance.now() > deadline) break;
    await Bun.sleep(20);
  }
  const left = crew.running().length;
  return left === 0 ? "nothing left" : `${left} left`;
}

/** What runs on after a kill -9 of the manager, and how often each runs after it was started again. */
async function killed(manager: Manager, crew: Crew): Promise<string> {
  const names = idlers(crew, 10);
  await manager.begin(crew, names);
  await manager.start();
  await crew.up(names, WAIT_MS);
  await Bun.sleep(SETTLE_MS);
  process.kill(manager.pid, "SIGKILL");
  await Bun.sleep(ORPHAN_MS);
  const orphans = crew.running().length;
  crew.forget(names);
  await manager.begin(crew, names);
  await manager.restart();
  await Bun.sleep(2 * SETTLE_MS);
  return `${orphans} of 10 run on; then ${crew.running().length} run`;
}

/** How long a program takes to print a lot, and what that leaves on the disk. */
async function flood(manager: Manager, crew: Crew, { outputMiB }: Size): Promise<string> {
  const name = crew.printer("printer", outputMiB);
  await manager.begin(crew, [name]);
  const elapsedMs = await timed(async () => {
    await manager.start();
    await crew.up(["done"], 10 * WAIT_MS);
  });
  const bytes = sizeOf(manager.outputFolder(crew));
  return `${(elapsedMs / 1e3).toFixed(1)} s, ${(bytes / 2 ** 20).toFixed(0)} MiB on disk`;
}

function sizeOf(path: string): number {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 0;
  if (!stat.isDirectory()) return stat.isFile() ? stat.size : 0;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

const LINES = [
  "100 started by one command",
  "a killed one back",
  "status of 100",
  "100 stopped by one command",
  "resident with 100",
  "a tree that forks away and ignores signals, after a stop",
  "10 programs after a kill -9 of the manager",
  "output of 1 GiB",
];

async function measure(manager: Manager, size: Size): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir().length > 32 ? "/tmp" : tmpdir(), "peers-"));
  let steps = 0;
  const within = async <T>(work: (crew: Crew) => Promise<T>): Promise<T | string> => {
    const crew = new Crew(join(folder, `${steps++}`));
    try {
      return await work(crew);
    } catch (error) {
      return `failed: ${(error as Error).message}`;
    } finally {
      await manager.end(crew).catch(() => {});
      crew.killAll();
    }
  };
  const many = await within((crew) => hundred(manager, crew, size));
  const results = Array.isArray(many) ? many : Array.from({ length: 5 }, () => many);
  results.push(await within((crew) => stubborn(manager, crew)));
  results.push(await within((crew) => killed(manager, crew)));
  results.push(await within((crew) => flood(manager, crew, size)));
  rmSync(folder, { recursive: true, force: true });
  return results;
}

/** Measures those that are installed, and prints what came of each. */
export async function runPeers(isSmoke: boolean, names: readonly string[]): Promise<void> {
  const size = isSmoke ? SMOKE : FULL;
  const wanted = MANAGERS.filter(({ name }) => names.length === 0 || names.includes(name));
  const width = Math.max(...LINES.map((line) => line.length));
  if (isSmoke) console.log(`Only ${size.programs} programs, and ${size.outputMiB} MiB of output.`);
  for (const manager of wanted) {
    const missing = manager.needs.filter((program) => Bun.which(program) === null);
    if (missing.length > 0) {
      console.log(`\n${manager.name} is not installed (${missing.join(", ")})`);
      continue;
    }
    console.log(`\n${manager.name}`);
    for (const [i, result] of (await measure(manager, size)).entries()) {
      console.log(`  ${(LINES[i] as string).padEnd(width)}  ${result}`);
    }
  }
}
