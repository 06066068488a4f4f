// The rows of the table: what is measured, how much of it, and what it has to reach.

import { MAX_FRAME_BYTES } from "../src/limits.ts";
import type { Dialect } from "../src/message.ts";
import { typeName } from "./bytes.ts";
import {
  type Layout,
  LoadStage,
  type Place,
  type Round,
  type Stage,
  type StageKind,
} from "./stage.ts";
import { PrintStage } from "./prints.ts";
import { BareStarts, InstanceStarts } from "./starts.ts";

/** One figure of a row, read off a round. */
export interface Figure {
  readonly name: string;
  readonly unit: "msg/s" | "B/s" | "trips/s" | "µs" | "ms";
  /** What the ratio to the baseline must reach: at least for rates, at most for times. */
  readonly target: number | undefined;
  read(round: Round): number;
}

export interface Row {
  /** By which it is chosen on the command line. */
  readonly key: string;
  readonly figures: readonly Figure[];
  /** Work of one round for each producer: in full, and at smoke size. */
  readonly count: number;
  readonly smokeCount: number;
  /** Work that goes before each round and is not timed; a multiple of four. */
  readonly runIn: number;
  /** Only run if it is named. */
  readonly isOnRequest?: boolean;
  /** Sets up a stage; undefined if the row has none of that kind. */
  open(kind: StageKind, place: Place, isSmoke: boolean): Promise<Stage> | undefined;
}

/** A figure is better the larger it is, or the smaller. */
export function isRate(figure: Figure): boolean {
  return figure.unit.endsWith("/s");
}

const NOTHING_IDLE = { instances: 0, links: 0 };
const BASE: Layout = {
  pattern: "stream",
  pairs: 1,
  consumers: 1,
  spread: "copy",
  from: "native",
  to: "native",
  payloadBytes: 64,
  onOneCore: false,
  idle: NOTHING_IDLE,
};

const perSecond = (round: Round): number => round.count / (round.elapsedMs / 1e3);
const bytesPerSecond = (round: Round): number => round.bytes / (round.elapsedMs / 1e3);

function messages(name: string, target?: number): Figure[] {
  return [{ name, unit: "msg/s", target, read: perSecond }];
}

function traffic(
  key: string,
  count: number,
  figures: readonly Figure[],
  layout: Partial<Layout>,
  smoke: Partial<Layout> = {},
): Row {
  const full: Layout = { ...BASE, ...layout };
  return {
    key,
    figures,
    count,
    smokeCount: Math.max(20, Math.ceil(count / 4000) * 4),
    runIn: Math.ceil(count / 16) * 4,
    open: (kind, place, isSmoke) =>
      LoadStage.open(place, kind, isSmoke ? { ...full, ...smoke } : full),
  };
}

function oneWay(
  key: string,
  name: string,
  count: number,
  [from, to]: readonly [Dialect, Dialect],
  target?: number,
): Row {
  return traffic(key, count, messages(name, target), { from, to });
}

function roundTrip(
  key: string,
  name: string,
  dialect: Dialect,
  onOneCore: boolean,
  target?: number,
): Row {
  const figures: Figure[] = [
    { name: `${name}, p50`, unit: "µs", target, read: ({ p50 }) => p50 },
    { name: `${name}, p99`, unit: "µs", target: undefined, read: ({ p99 }) => p99 },
  ];
  return traffic(key, 3_000, figures, { pattern: "echo", from: dialect, to: dialect, onOneCore });
}

function bulk(key: string, name: string, payloadBytes: number, count: number): Row {
  const figures: Figure[] = [{ name, unit: "B/s", target: undefined, read: bytesPerSecond }];
  return traffic(key, count, figures, { payloadBytes });
}

const starts: Row = {
  key: "starts",
  figures: [{ name: "100 starts", unit: "ms", target: 1.5, read: ({ elapsedMs }) => elapsedMs }],
  count: 100,
  smokeCount: 10,
  runIn: 0,
  open: (kind, place, isSmoke) => {
    const count = isSmoke ? 10 : 100;
    if (kind === "direct") return undefined;
    return kind === "ours" ? InstanceStarts.open(place, count) : BareStarts.open(place, count);
  },
};

const output: Row = {
  key: "output",
  figures: [
    {
      name: "100-byte lines of one instance to disk",
      unit: "B/s",
      target: 0.5,
      read: bytesPerSecond,
    },
  ],
  count: 2_700_000,
  smokeCount: 20_000,
  runIn: 0,
  open: (kind, place) => (kind === "direct" ? undefined : PrintStage.open(kind, place)),
};

/** Here the baseline is ours too: a daemon that has nothing but the ten instances. */
const crowd: Row = {
  key: "crowd",
  figures: messages("10 of 1,000 instances, 4,000 links, against 10 alone"),
  count: 240_000,
  smokeCount: 200,
  runIn: 60_000,
  open: (kind, place, isSmoke) => {
    const layout: Layout = { ...BASE, pairs: isSmoke ? 2 : 5 };
    if (kind === "direct") return LoadStage.open(place, "direct", layout);
    const idle = isSmoke ? { instances: 20, links: 40 } : { instances: 990, links: 3_995 };
    return LoadStage.open(place, "ours", kind === "ours" ? { ...layout, idle } : layout);
  },
};

/** The largest frame that the orchestrator takes is 1 MiB with its header. */
const LARGEST = MAX_FRAME_BYTES - 4 - typeName(0).length;

export const ROWS: readonly Row[] = [
  oneWay("native", "one way, native", 1_200_000, ["native", "native"], 0.35),
  oneWay("veecle", "one way, Veecle", 600_000, ["veecle", "veecle"], 0.25),
  // Where cores sleep between messages, waking them takes several times as long as everything else,
  // and how often that happens depends on where the scheduler puts which process: on one core it
  // never does. The row without that is for who wants to see it: nothing follows from its ratio.
  roundTrip("trip", "round trip on one core, native", "native", true, 1.3),
  roundTrip("trip-veecle", "round trip on one core, Veecle", "veecle", true, 1.3),
  {
    ...roundTrip("trip-free", "round trip over sleeping cores, native", "native", false),
    isOnRequest: true,
  },
  starts,
  traffic("split", 600_000, messages("four types to four consumers, native"), {
    consumers: 4,
    spread: "split",
  }),
  traffic("split-veecle", 400_000, messages("four types to four consumers, Veecle"), {
    consumers: 4,
    spread: "split",
    from: "veecle",
    to: "veecle",
  }),
  traffic(
    "fan",
    120_000,
    messages("one to 16 consumers, native (deliveries)"),
    { consumers: 16 },
    { consumers: 4 },
  ),
  bulk("1k", "1 KiB payloads, native", 1024, 150_000),
  bulk("64k", "64 KiB payloads, native", 64 * 1024, 2_400),
  bulk("1m", "1 MiB frames, native", LARGEST, 150),
  traffic(
    "pairs",
    50,
    [
      {
        name: "64 pairs in a closed loop, native",
        unit: "trips/s",
        target: undefined,
        read: perSecond,
      },
    ],
    { pattern: "echo", pairs: 64 },
    { pairs: 2 },
  ),
  oneWay("to-veecle", "native to Veecle", 400_000, ["native", "veecle"]),
  oneWay("to-native", "Veecle to native", 400_000, ["veecle", "native"]),
  crowd,
  output,
];
