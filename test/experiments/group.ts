// The good ones: one producer, the consumers to which all of its messages go, and what they measure.
//
// A group loses nothing and gets everything in order, whatever happens beside it: `settle` says so.

import type { PlayerOrder, Production, Report } from "../fixtures/player.ts";
import type { Actor } from "../fixtures/stage.ts";
import { checkAccounts } from "../support/accounts.ts";
import type { Daemon } from "../support/daemon.ts";
import { until } from "../support/wire.ts";
import { demand, median } from "./outcome.ts";

export interface GroupOptions {
  readonly consumers?: number;
  readonly bytes?: number;
  readonly window?: number;
  readonly every?: number;
  readonly pauseMs?: number;
}

/** What a group did in some time. */
export interface Measure {
  /** Messages a second of the slowest consumer. */
  readonly rate: number;
  readonly p50: number;
  readonly p99: number;
}

/** Asks a player for its report, after orders if there are any. */
export function tell(actor: Actor, order: PlayerOrder = {}): Promise<Report> {
  return actor.ask<Report>(order, 15_000);
}

export class Group {
  readonly type: string;
  readonly producer: Actor;
  readonly consumers: readonly Actor[];
  readonly #daemon: Daemon;

  private constructor(daemon: Daemon, type: string, producer: Actor, consumers: readonly Actor[]) {
    this.#daemon = daemon;
    this.type = type;
    this.producer = producer;
    this.consumers = consumers;
  }

  /** Starts and links a group whose messages have a type of its own; it does not send yet. */
  static async start(daemon: Daemon, name: string, options: GroupOptions = {}): Promise<Group> {
    const { consumers: count = 1, bytes = 120, window = 1024, every = 64, pauseMs = 0 } = options;
    const player = (): Promise<Actor> => daemon.actor("player.ts");
    const [producer, ...consumers] = await Promise.all([
      player(),
      ...Array.from({ length: count }, player),
    ]);
    const type = `good::${name}`;
    const production: Production = {
      type,
      ack: `${type}::Ack`,
      consumers: count,
      bytes,
      window,
      every,
      pauseMs,
    };
    for (const consumer of consumers) {
      await tell(consumer, { consume: production });
      await daemon.link(type, consumer.id, producer.id);
      await daemon.link(production.ack, producer.id, consumer.id);
    }
    await tell(producer, { produce: production });
    return new Group(daemon, type, producer, consumers);
  }

  /** Sends from now on. */
  async resume(): Promise<void> {
    await tell(this.producer, { resume: true });
  }

  /** Comes to rest; returns how many messages were sent in all. */
  async pause(): Promise<number> {
    let { sent, isIdle } = await tell(this.producer, { pause: true });
    for (let left = 1_500; !isIdle; left--) {
      demand(left > 0, `${this.type} does not come to rest: a message was lost`);
      await Bun.sleep(2);
      ({ sent, isIdle } = await tell(this.producer));
    }
    return sent;
  }

  /** Waits until it has sent at least so many messages in all. */
  async done(count: number, withinMs: number): Promise<void> {
    await until(
      `${count} messages of ${this.type} are sent`,
      async () => {
        const { sent } = await tell(this.producer);
        if (sent < count) await Bun.sleep(20);
        return sent >= count;
      },
      withinMs,
    );
  }

  /** What it does within the next so many milliseconds, while it sends. */
  async measure(ms: number): Promise<Measure> {
    const look = (): Promise<Report[]> =>
      Promise.all([this.producer, ...this.consumers].map((one) => tell(one)));
    const before = await look();
    await Bun.sleep(ms);
    const after = await look();
    const rates = after.slice(1).map((report, i) => {
      const { received, atMs } = before[i + 1] as Report;
      return ((report.received - received) / (report.atMs - atMs)) * 1_000;
    });
    const { p50, p99 } = after[0] as Report;
    return { rate: Math.min(...rates), p50, p99 };
  }

  /** Comes to rest. @throws if a consumer has not got everything, once, in order and whole */
  async settle(): Promise<number> {
    const sent = await this.pause();
    for (const consumer of this.consumers) {
      const { received, missing, disorder, corrupt } = await tell(consumer);
      const found = { received, missing, disorder, corrupt };
      const wanted = { received: sent, missing: 0, disorder: 0, corrupt: 0 };
      demand(Bun.deepEquals(found, wanted), `All ${sent} of ${this.type} arrive in order`, found);
    }
    const info = await this.#daemon.info();
    checkAccounts(info);
    const own = info.routes.filter(({ type_name }) => type_name === this.type);
    for (const consumer of this.consumers) {
      const route = own.find(({ to }) => to === consumer.id);
      const isAll = route?.routed === sent && route.delivered === sent;
      demand(isAll, `The accounts say that all ${sent} were delivered`, route);
    }
    return sent;
  }
}

/** Median ratios of pairs of neighbouring measures: with a disturbance, to those without. */
export function compare(
  pairs: readonly { readonly calm: Measure; readonly disturbed: Measure }[],
): Measure {
  const ratio = (read: (measure: Measure) => number): number =>
    median(pairs.map(({ calm, disturbed }) => read(disturbed) / read(calm)));
  return {
    rate: ratio(({ rate }) => rate),
    p50: ratio(({ p50 }) => p50),
    p99: ratio(({ p99 }) => p99),
  };
}

/** The most memory that the daemon has while something goes on, looked at every 20 ms. */
export async function peakMemory(daemon: Daemon, work: Promise<unknown>): Promise<number> {
  let isOver = false;
  const over = work.finally(() => {
    isOver = true;
  });
  let peak = daemon.memory();
  while (!isOver) {
    await Promise.race([over, Bun.sleep(20)]);
    peak = Math.max(peak, daemon.memory());
  }
  await over;
  return peak;
}
