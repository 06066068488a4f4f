// The rows of the table, each with how much of its work is done and what it has to reach.

import { MAX_FRAME_BYTES } from "../src/limits.ts";
import type { Dialect } from "../src/message.ts";
import { typeName } from "./bytes.ts";
import { FloodStage } from "./flood.ts";
import { LISTS } from "./lists.ts";
import { LIVES } from "./lives.ts";
import { NATS_SERVER } from "./nats.ts";
import { SoakStage } from "./memory.ts";
import { type Layout, LoadStage, type Round } from "./stage.ts";
import { PrintStage } from "./prints.ts";
import type { Figure, Row } from "./row.ts";
import { BareStarts, InstanceStarts } from "./starts.ts";
import { TelemetryStage } from "./telemetry.ts";

const BASE: Layout = {
  pattern: "stream",
  pairs: 1,
  consumers: 1,
  spread: "copy",
  from: "native",
  to: "native",
  payloadBytes: 64,
  firstType: 0,
  pauseMs: 0,
  onOneCore: false,
  idle: { instances: 0, links: 0 },
};
const VEECLE: Partial<Layout> = { from: "veecle", to: "veecle" };

const BETWEEN = { ours: "orchestrator", bare: "relay", direct: "nothing" } as const;

const perSecond = (round: Round): number => round.count / (round.elapsedMs / 1e3);
const bytesPerSecond = (round: Round): number => round.bytes / (round.elapsedMs / 1e3);

function messages(name: string, target: number): Figure[] {
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
      LoadStage.open(place, BETWEEN[kind], isSmoke ? { ...full, ...smoke } : full),
  };
}

function oneWay(
  key: string,
  name: string,
  count: number,
  [from, to]: readonly [Dialect, Dialect],
  target: number,
): Row {
  return traffic(key, count, messages(name, target), { from, to });
}

/** The same messages through `nats-server`, in its own protocol over TCP, since it has no Unix sockets. */
function againstNats(
  key: string,
  name: string,
  count: number,
  dialect: Dialect,
  target: number,
): Row {
  const ours: Layout = { ...BASE, from: dialect, to: dialect };
  const theirs: Layout = { ...BASE, from: "PUB", to: "MSG" };
  return {
    ...traffic(key, count, messages(name, target), {}),
    needs: { program: "nats-server", path: NATS_SERVER },
    open: (kind, place) => {
      if (kind === "ours") return LoadStage.open(place, "orchestrator", ours);
      return LoadStage.open(place, kind === "bare" ? "nats-server" : "nothing", theirs);
    },
  };
}

function roundTrip(key: string, name: string, dialect: Dialect, onOneCore: boolean): Row {
  const figures: Figure[] = [
    { name: `${name}, p50`, unit: "µs", target: 1.15, read: ({ p50 }) => p50 },
    { name: `${name}, p99`, unit: "µs", target: 1.3, read: ({ p99 }) => p99 },
  ];
  return traffic(key, 3_000, figures, { pattern: "echo", from: dialect, to: dialect, onOneCore });
}

function bulk(key: string, name: string, payloadBytes: number, count: number, target: number): Row {
  const figures: Figure[] = [{ name, unit: "B/s", target, read: bytesPerSecond }];
  return traffic(key, count, figures, { payloadBytes });
}

/** Here the baseline is ours too: the slow pair and the requests without a flood. */
function flood(key: string, name: string, dialect: Dialect): Row {
  const layout: Layout = { ...BASE, pattern: "echo", pauseMs: 3 };
  return {
    key,
    figures: [
      { name: `round trip beside ${name}, p50`, unit: "µs", target: 3, read: ({ p50 }) => p50 },
      {
        name: `control request beside ${name}, p99`,
        unit: "ms",
        limit: 50,
        read: ({ controlMs = Number.NaN }) => controlMs,
      },
    ],
    count: 100,
    smokeCount: 20,
    runIn: 0,
    open: (kind, place) => {
      if (kind === "direct") return undefined;
      return FloodStage.open(place, layout, kind === "ours" ? dialect : undefined);
    },
  };
}

const starts: Row = {
  key: "starts",
  figures: [{ name: "100 starts", unit: "ms", target: 1.25, read: ({ elapsedMs }) => elapsedMs }],
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
  figures: messages("10 of 1,000 instances, 4,000 links, against 10", 0.9),
  count: 240_000,
  smokeCount: 200,
  runIn: 60_000,
  open: (kind, place, isSmoke) => {
    const layout: Layout = { ...BASE, pairs: isSmoke ? 2 : 5 };
    if (kind === "direct") return LoadStage.open(place, "nothing", layout);
    const idle = isSmoke ? { instances: 20, links: 40 } : { instances: 990, links: 3_995 };
    return LoadStage.open(place, "orchestrator", kind === "ours" ? { ...layout, idle } : layout);
  },
};

/** Here the baseline is ours too, while a bare relay carries the lines in a process of its own. */
const telemetry: Row = {
  key: "telemetry",
  figures: [
    {
      name: "beside 200,000 lines/s, per core that they leave",
      unit: "msg/s",
      target: 0.9,
      read: (round) => perSecond(round) / (round.coreLeft ?? 1),
    },
    {
      name: "a line of telemetry, processor time",
      unit: "ns/line",
      read: ({ lineNs = Number.NaN }) => lineNs,
    },
  ],
  count: 2_000_000,
  smokeCount: 4_000,
  runIn: 0,
  open: (kind, place, isSmoke) => {
    if (kind === "direct") return undefined;
    return TelemetryStage.open(place, kind, BASE, isSmoke ? 100 : 1_000);
  },
};

/** Has no baseline. Five minutes, or ten seconds that show that nothing grows without bound. */
const memory: Row = {
  key: "memory",
  figures: [
    {
      name: "resident size, how far its median of 10 s moves",
      unit: "MiB",
      limit: 8,
      read: ({ driftMiB = Number.NaN }) => driftMiB,
    },
  ],
  count: 1_000_000,
  smokeCount: 100_000,
  runIn: 0,
  rounds: 1,
  isOnRequest: true,
  open: (kind, place, isSmoke) => {
    if (kind !== "ours") return undefined;
    const layouts = [BASE, { ...BASE, ...VEECLE, firstType: 1 }];
    const times = isSmoke
      ? { allMs: 10_000, windowMs: 2_000 }
      : { allMs: 300_000, windowMs: 10_000 };
    return SoakStage.open(place, layouts, times);
  },
};

/** The largest frame that the orchestrator takes is 1 MiB with its header. */
const LARGEST = MAX_FRAME_BYTES - 4 - typeName(0).length;

export const ROWS: readonly Row[] = [
  oneWay("native", "one way, native", 1_200_000, ["native", "native"], 0.6),
  oneWay("veecle", "one way, Veecle", 600_000, ["veecle", "veecle"], 0.45),
  againstNats("nats", "one way, native, against nats-server", 1_200_000, "native", 4),
  againstNats("nats-veecle", "one way, Veecle, against nats-server", 600_000, "veecle", 2.5),
  // Where cores sleep between messages, waking them takes several times as long as everything else,
  // and how often that happens depends on where the scheduler puts which process: on one core it
  // never does. The row without that is for who wants to see it: nothing follows from its ratio.
  roundTrip("trip", "round trip on one core, native", "native", true),
  roundTrip("trip-veecle", "round trip on one core, Veecle", "veecle", true),
  {
    ...roundTrip("trip-free", "round trip over sleeping cores, native", "native", false),
    isOnRequest: true,
  },
  starts,
  ...LIVES,
  ...LISTS,
  traffic("split", 600_000, messages("four types to four consumers, native", 0.45), {
    consumers: 4,
    spread: "split",
  }),
  traffic("split-veecle", 400_000, messages("four types to four consumers, Veecle", 0.35), {
    ...VEECLE,
    consumers: 4,
    spread: "split",
  }),
  traffic(
    "fan",
    120_000,
    messages("one to 16 consumers, native (deliveries)", 0.8),
    { consumers: 16 },
    { consumers: 4 },
  ),
  bulk("1k", "1 KiB payloads, native", 1024, 150_000, 0.75),
  bulk("64k", "64 KiB payloads, native", 64 * 1024, 2_400, 0.9),
  bulk("1m", "1 MiB frames, native", LARGEST, 150, 0.9),
  traffic(
    "pairs",
    50,
    [{ name: "64 pairs in a closed loop, native", unit: "trips/s", target: 0.9, read: perSecond }],
    { pattern: "echo", pairs: 64 },
    { pairs: 2 },
  ),
  oneWay("to-veecle", "native to Veecle", 400_000, ["native", "veecle"], 0.3),
  oneWay("to-native", "Veecle to native", 400_000, ["veecle", "native"], 0.3),
  crowd,
  telemetry,
  flood("flood", "a native flood", "native"),
  flood("flood-veecle", "a Veecle flood", "veecle"),
  memory,
  output,
];
