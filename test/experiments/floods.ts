// R24: one that floods takes no more than its share, and fills no log.

import { type Daemon, withDaemon } from "../support/daemon.ts";
import type { Actor } from "../fixtures/stage.ts";
import { compare, Group, type Measure, peakMemory } from "./group.ts";
import {
  demand,
  excessLines,
  logLines,
  median,
  memory,
  milliseconds,
  multiple,
  type Outcome,
  percentile,
  share,
} from "./outcome.ts";

/** What one floods with, and whether it reads what comes back; see `vice.ts`. */
export const FLOODS = [
  "linked reading",
  "unlinked reading",
  "types reading",
  "kinds reading",
  "lines reading",
  "telemetry reading",
  "hellos reading",
  "hellos deaf",
  "requests reading",
  "requests deaf",
] as const;

export type Flood = (typeof FLOODS)[number];

export interface FloodSize {
  /** Groups of one producer and one consumer beside the flooder. */
  readonly groups: number;
  readonly rounds: number;
  readonly ms: number;
}

/** A fair share is what each group has when a further group of its kind is in the flooder's place. */
export async function flood(kind: Flood, size: FloodSize): Promise<Outcome> {
  const pairs: { calm: Measure; disturbed: Measure }[][] = [];
  let [bytes, before, peak, excess] = [0, 0, 0, 0];
  await withDaemon(async (daemon) => {
    const groups = await Promise.all(
      Array.from({ length: size.groups }, (_, i) => Group.start(daemon, `T${i}`)),
    );
    const further = await Group.start(daemon, "further");
    const flooder = await startFlooder(daemon, kind);
    if (kind === "linked reading") {
      const target = await daemon.add(daemon.program("player.ts"));
      await daemon.startActor(target, "low");
      await daemon.link("flood::Linked", target);
    }
    const measure = (): Promise<Measure[]> =>
      Promise.all(groups.map((group) => group.measure(size.ms)));
    const flow = async (isFlooding: boolean): Promise<void> => {
      ({ bytes } = await flooder.ask<{ bytes: number }>({ flood: isFlooding }));
    };
    for (const group of groups) await group.resume();
    await further.resume();
    await measure();
    for (let round = 0; round < size.rounds; round++) {
      await further.resume();
      const calm = measure();
      before = Math.max(before, await peakMemory(daemon, calm));
      await further.pause();
      const [logged, beganMs] = [daemon.log.length, performance.now()];
      await flow(true);
      const disturbed = measure();
      peak = Math.max(peak, await peakMemory(daemon, disturbed));
      await flow(false);
      excess = Math.max(excess, excessLines(daemon.log.slice(logged), performance.now() - beganMs));
      const [first, second] = [await calm, await disturbed];
      pairs.push(
        groups.map((_, i) => ({ calm: first[i] as Measure, disturbed: second[i] as Measure })),
      );
    }
    demand((await daemon.runtime(flooder.id)).running, "The flooder still runs");
    for (const group of [...groups, further]) await group.settle();
  });
  const rates = pairs[0]?.map((_, i) => {
    return compare(pairs.map((groups) => groups[i] as { calm: Measure; disturbed: Measure })).rate;
  });
  return {
    work: `${(bytes / 2 ** 20).toFixed(0)} MiB of ${kind.split(" ").join(", ")}, beside ${size.groups} pairs`,
    figures: [
      share("least share of a pair", Math.min(...(rates ?? [])), 0.8, 0.3),
      memory(peak - before, 4),
      logLines(excess),
    ],
  };
}

/** It has a low priority: what is measured is our fairness, not that of the system's scheduler. */
function startFlooder(daemon: Daemon, kind: Flood): Promise<Actor> {
  return daemon
    .add(daemon.program("vice.ts", "flooder", ...kind.split(" ")))
    .then((id) => daemon.startActor(id, "low"));
}

/** A slow pair's round trips and the requests of a client, while others flood. */
export async function roundTrips(
  size: Omit<FloodSize, "groups"> & { readonly kinds: readonly Flood[] },
): Promise<Outcome> {
  const pairs: { calm: Measure; disturbed: Measure }[] = [];
  const requests: number[] = [];
  await withDaemon(async (daemon) => {
    const pair = await Group.start(daemon, "T", { window: 1, every: 1, pauseMs: 1 });
    const flooders: Actor[] = [];
    for (const kind of size.kinds) flooders.push(await startFlooder(daemon, kind));
    await daemon.link("flood::Linked", await daemon.add("/never-started"));
    const control = await daemon.control();
    await pair.resume();
    await pair.measure(size.ms);
    for (let round = 0; round < size.rounds; round++) {
      const calm = await pair.measure(size.ms);
      for (const flooder of flooders) await flooder.ask({ flood: true });
      const measuring = pair.measure(size.ms);
      let isOver = false;
      void measuring.finally(() => {
        isOver = true;
      });
      while (!isOver) {
        const begin = performance.now();
        await control.ok("Version");
        requests.push(performance.now() - begin);
        await Bun.sleep(2);
      }
      pairs.push({ calm, disturbed: await measuring });
      for (const flooder of flooders) await flooder.ask({ flood: false });
    }
    await pair.settle();
  });
  const { p50 } = compare(pairs);
  const [idle, flooded] = [
    median(pairs.map(({ calm }) => calm.p50)),
    median(pairs.map(({ disturbed }) => disturbed.p50)),
  ];
  return {
    work: `${requests.length} requests, and round trips of a slow pair, beside ${size.kinds.length} that flood`,
    figures: [
      // On a machine that is busy with other things, what is idle here does not tell.
      multiple("round trip, of the idle one", p50, 3, Math.max(10, 50 / idle)),
      milliseconds("round trip", flooded, 50, 50),
      milliseconds("request, p50", median(requests), 50, 50),
      milliseconds("request, p99", percentile(requests, 0.99), 50, 1_000),
    ],
  };
}
