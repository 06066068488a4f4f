// As many instances as there may be, with more waiting for each than there is room for in all.

import { join } from "node:path";

import { MAX_INSTANCES, MAX_TOTAL_QUEUE_BYTES } from "../../src/limits.ts";
import type { Info } from "../../src/protocol/info.ts";
import type { Actor } from "../fixtures/stage.ts";
import { checkAccounts } from "../support/accounts.ts";
import { type Daemon, Launched, withDaemon, withFolder } from "../support/daemon.ts";
import { until } from "../support/wire.ts";
import { compare, Group, type Measure, peakMemory, tell } from "./group.ts";
import {
  demand,
  type Figure,
  median,
  milliseconds,
  type Outcome,
  percentile,
  share,
} from "./outcome.ts";

const SANE_MS = 60_000;
const TYPE = "mass::Message";
/** Two of a group, and one that feeds the others. */
const PLAYERS = 3;
/** Payload of a message: as most are. */
const BYTES = 100;
/** Of what is queued: blocks that are filled in part, and what the allocator has not given back. */
const MEMORY_RATIO = 3;

export interface MassSize {
  /** In all; the players of the experiment are among them. */
  readonly instances: number;
  /** Of these, how many run and never connect. */
  readonly running: number;
  /** Messages that are sent to each of them. */
  readonly messages: number;
  /** How long rates are measured, and how often. */
  readonly ms: number;
  readonly rounds: number;
}

/** What the default limits let somebody have. */
export const FULL_MASS: MassSize = {
  instances: MAX_INSTANCES,
  running: 100,
  messages: 10_000,
  ms: 1_500,
  rounds: 5,
};

interface Mass {
  readonly group: Group;
  readonly feeder: Actor;
  readonly ids: readonly string[];
}

/** Registers the others: some run, none ever reads. */
async function gather(daemon: Daemon, size: MassSize): Promise<Mass> {
  const group = await Group.start(daemon, "T");
  const feeder = await daemon.actor("player.ts");
  const path = daemon.script("#!/bin/sh\nexec sleep 1000\n");
  const ids: string[] = [];
  const control = await daemon.control();
  while (ids.length < size.instances - PLAYERS) {
    const id = crypto.randomUUID();
    await control.ok({ Add: { id, path } });
    await control.ok({ Link: { type_name: TYPE, to: id } });
    if (ids.length < size.running) await control.ok({ Start: id });
    ids.push(id);
  }
  control.wire.close();
  return { group, feeder, ids };
}

/** Sends messages to all of them; returns when the daemon has taken the last. */
async function feed(daemon: Daemon, { feeder, ids }: Mass, count: number): Promise<void> {
  await tell(feeder, { inject: { type: TYPE, count, bytes: BYTES } });
  await until(
    "all are routed",
    async () => {
      const { routes } = await daemon.info();
      const mine = routes.filter(({ type_name }) => type_name === TYPE);
      const isDone = mine.length === ids.length && mine.every(({ routed }) => routed >= count);
      if (!isDone) await Bun.sleep(200); // to ask is work too
      return isDone;
    },
    SANE_MS,
  );
}

/** Asks for Info again and again for so long; returns how long each answer took. */
async function askMeanwhile(daemon: Daemon, ms: number): Promise<number[]> {
  const answers: number[] = [];
  const control = await daemon.control();
  const begin = performance.now();
  while (performance.now() - begin < ms) {
    const asked = performance.now();
    control.send("Info");
    await control.answerText();
    answers.push(performance.now() - asked);
    await Bun.sleep(20);
  }
  control.wire.close();
  return answers;
}

/** What was found with all queues full, and what is compared with that. */
interface Found {
  readonly pairs: { calm: Measure; disturbed: Measure }[];
  readonly answers: number[];
  emptyMiB: number;
  peakMiB: number;
  queued: number;
  info: Info;
}

/** Rounds take turns with empty queues and with full ones. */
async function fillInRounds(daemon: Daemon, all: Mass, size: MassSize): Promise<Found> {
  const found: Found = {
    pairs: [],
    answers: [],
    emptyMiB: daemon.memory() / 2 ** 20,
    peakMiB: 0,
    queued: 0,
    info: await daemon.info(),
  };
  for (let round = 0; round < size.rounds; round++) {
    if (round > 0) await relink(daemon, all);
    await all.group.resume();
    const calm = await all.group.measure(size.ms);
    const fed = feed(daemon, all, size.messages);
    found.peakMiB = Math.max(found.peakMiB, (await peakMemory(daemon, fed)) / 2 ** 20);
    const disturbed = await all.group.measure(size.ms);
    found.pairs.push({ calm, disturbed });
    found.answers.push(...(await askMeanwhile(daemon, size.ms)));
    found.info = await daemon.info();
    checkAccounts(found.info);
    const mine = found.info.routes.filter(({ type_name }) => type_name === TYPE);
    found.queued = mine.reduce((sum, { queued }) => sum + queued, 0);
    const most = Math.max(...mine.map(({ queued }) => queued));
    const fewest = Math.min(...mine.map(({ queued }) => queued));
    demand(fewest > most / 2, "Each has its share of what there is room for", [fewest, most]);
  }
  await all.group.settle();
  return found;
}

/** Drops what waits. */
async function relink(daemon: Daemon, { ids }: Mass): Promise<void> {
  const control = await daemon.control();
  for (const id of ids) {
    await control.ok({ Unlink: { type_name: TYPE, to: id } });
    await control.ok({ Link: { type_name: TYPE, to: id } });
  }
  control.wire.close();
}

/**
 * Messages wait for every instance that there may be, until the bound of all queues holds them. Then
 * the daemon is killed, as a system without memory does, and its successor has them all again.
 */
export async function mass(size: MassSize): Promise<Outcome> {
  const figures: Figure[] = [];
  let work = "";
  await withDaemon(async (daemon) => {
    const all = await gather(daemon, size);
    const found = await fillInRounds(daemon, all, size);
    const servingMs = await succeed(daemon, found.info, size.running + PLAYERS);
    work = `${size.instances} instances, ${size.messages} messages to each, ${found.queued} wait`;
    figures.push(
      share("rate of others", compare(found.pairs).rate, 0.95, 0.3),
      milliseconds("Info p50", median(found.answers), 50, SANE_MS),
      milliseconds("Info p99", percentile(found.answers, 0.99), 100, SANE_MS),
      {
        name: "memory +",
        value: found.peakMiB - found.emptyMiB,
        unit: "MiB",
        is: "at most",
        promised: MEMORY_RATIO * (MAX_TOTAL_QUEUE_BYTES / 2 ** 20),
        sane: 4 * (MAX_TOTAL_QUEUE_BYTES / 2 ** 20),
      },
      milliseconds("serving again after", servingMs, 2_000, SANE_MS),
    );
  });
  return { work, figures };
}

/** Data segments of a daemon, in KiB: how much the engine needs for itself depends on the machine. */
const SEGMENTS_KIB = [300_000, 400_000, 600_000, 1_000_000, 2_000_000] as const;
/** What it has for its work: less than its queues may hold. */
const SPARE_KIB = 100_000;

function limitTo(kib: number): string {
  return `ulimit -d ${kib}; ulimit -c 0`;
}

/** The least with which a daemon serves, and some more. */
async function scarceMemory(): Promise<number> {
  for (const kib of SEGMENTS_KIB) {
    let serves = false;
    await withFolder(async (folder) => {
      const wrapper = ["sh", "-c", `${limitTo(kib)}; exec "$@"`, "sh"];
      const daemon = new Launched(["--ephemeral"], { XDG_RUNTIME_DIR: folder }, wrapper);
      serves = await daemon.control(join(folder, "veecle-orchestrator.socket")).then(
        () => true,
        () => false,
      );
      await daemon.end("SIGKILL");
    });
    if (serves) return kib + SPARE_KIB;
  }
  throw new Error("A daemon starts with no limit of memory that was tried");
}

/**
 * The system gives the daemon less memory than its queues may hold. It drops what waits, goes on,
 * and serves others; or it is killed, and its successor has everything again.
 */
export async function scarce(size: { instances: number; messages: number }): Promise<Outcome> {
  let work = "";
  await withDaemon(
    async (daemon) => {
      const feeder = await daemon.actor("player.ts");
      const ids: string[] = [];
      while (ids.length < size.instances) ids.push(await daemon.add("/never-started"));
      for (const id of ids) await daemon.link(TYPE, id);
      const before = await daemon.info();
      const isOver = (): boolean =>
        !daemon.isRunning || daemon.log.includes("out of memory: half of what waits is dropped");
      for (let sent = 0; sent < size.messages && !isOver(); sent += 1_000) {
        await tell(feeder, { inject: { type: TYPE, count: 1_000, bytes: BYTES } });
        await Bun.sleep(20);
      }
      await until("memory is scarce", isOver);
      if (!daemon.isRunning) {
        await succeed(daemon, before, 1);
        work = `${size.instances} instances, killed for want of memory`;
        return;
      }
      const info = await daemon.info();
      checkAccounts(info);
      demand(Object.keys(info.runtimes).length === size.instances + 1, "Nothing is forgotten");
      const group = await Group.start(daemon, "T");
      await group.resume();
      await group.done(10_000, SANE_MS);
      const sent = await group.settle();
      work = `${size.instances} instances, out of memory; then ${sent} messages to another`;
    },
    { limits: limitTo(await scarceMemory()) },
  );
  return { work, figures: [] };
}

/** The daemon is killed; its successor has every instance and every link, and runs what ran. */
async function succeed(daemon: Daemon, before: Info, running: number): Promise<number> {
  daemon.signal("SIGKILL");
  await daemon.exit();
  const begin = performance.now();
  const next = new Launched(["--control-socket", daemon.address], daemon.environment);
  const control = await next.control(daemon.address);
  const servingMs = performance.now() - begin;
  const info = async (): Promise<Info> => (await control.ok("Info")) as Info;
  const now = await until(
    "what ran runs again",
    async () => {
      const looked = await info();
      const found = Object.values(looked.runtimes).filter((one) => one.running);
      return found.length === running && looked;
    },
    SANE_MS,
  );
  const ids = ({ runtimes }: Info): string[] => Object.keys(runtimes).sort();
  const links = ({ routes }: Info): string[] =>
    routes.map(({ from, type_name, to }) => `${from} ${type_name} ${to}`).sort();
  demand(Bun.deepEquals(ids(now), ids(before)), "Every instance is there again");
  demand(Bun.deepEquals(links(now), links(before)), "Every link is there again");
  await control.ok("Clear", SANE_MS);
  await next.end("SIGTERM");
  return servingMs;
}
