// R19 and R20: consumers with a vice beside good ones, which must not notice.

import { routeTo } from "../fixtures/accounts.ts";
import type { Receipt } from "../fixtures/numbered.ts";
import type { Actor } from "../fixtures/stage.ts";
import { droppedOf } from "../support/accounts.ts";
import { type Daemon, withDaemon } from "../support/daemon.ts";
import { until } from "../support/wire.ts";
import { compare, Group, type Measure, peakMemory, tell } from "./group.ts";
import { demand, memory, multiple, type Outcome, share } from "./outcome.ts";

/** A consumer with a vice, to which messages come as long as it is linked. */
interface Bad {
  readonly id: string;
  /** Ends the vice: from then on it reads what it is sent. */
  recover?(): Actor;
}

type Setup = (daemon: Daemon, type: string) => Promise<Bad>;

const vice =
  (...args: readonly (string | number)[]): Setup =>
  async (daemon) => {
    const { id } = await daemon.actor("vice.ts", ...args);
    return { id };
  };

export type ConsumerVice =
  | "never started"
  | "silent"
  | "silent after its greeting"
  | "reading a byte at a time"
  | "stopped by SIGSTOP"
  | "crashed";

/** What can be wrong with a consumer. */
export const CONSUMER_VICES: Readonly<Record<ConsumerVice, Setup>> = {
  "never started": async (daemon) => ({ id: await daemon.add("/never-started") }),
  silent: vice("silent", "none"),
  "silent after its greeting": vice("silent", "native"),
  "reading a byte at a time": vice("slow", 100),
  "stopped by SIGSTOP": async (daemon, type) => {
    const actor = await daemon.actor("player.ts");
    await tell(actor, { consume: { type, ack: "nobody::Listens", every: 1_000 } });
    process.kill(actor.pid, "SIGSTOP");
    const recover = (): Actor => {
      process.kill(actor.pid, "SIGCONT");
      return actor;
    };
    return { id: actor.id, recover };
  },
  crashed: async (daemon) => {
    const { id, pid } = await daemon.actor("player.ts");
    process.kill(pid, "SIGKILL");
    await daemon.ended(id);
    return { id };
  },
};

export interface ConsumerSize {
  /** Good consumers of the same messages. */
  readonly consumers: number;
  readonly rounds: number;
  /** Of each half of a round: without the one with the vice, and with it. */
  readonly ms: number;
}

/**
 * One of several consumers of the same messages has a vice. Rounds take turns without and with its
 * link; what it was sent is delivered, dropped by reason or queued, exactly.
 */
export async function badConsumer(name: ConsumerVice, size: ConsumerSize): Promise<Outcome> {
  const pairs: { calm: Measure; disturbed: Measure }[] = [];
  let [sent, peak, before] = [0, 0, 0];
  await withDaemon(async (daemon) => {
    const group = await Group.start(daemon, "T", { consumers: size.consumers });
    const { id, recover } = await CONSUMER_VICES[name](daemon, group.type);
    const link = { type_name: group.type, to: id };
    await group.resume();
    await group.measure(size.ms);
    for (let round = 0; round < size.rounds; round++) {
      if (round > 0) await daemon.ok({ Unlink: link });
      await group.resume();
      const calm = group.measure(size.ms);
      before = Math.max(before, await peakMemory(daemon, calm));
      const first = await group.pause();
      await daemon.ok({ Link: link });
      await group.resume();
      const disturbed = group.measure(size.ms);
      peak = Math.max(peak, await peakMemory(daemon, disturbed));
      pairs.push({ calm: await calm, disturbed: await disturbed });
      const last = await group.pause();
      const route = await routeTo(daemon, id);
      const { routed, delivered, queued } = route;
      const isExact = routed === last - first && routed === delivered + queued + droppedOf(route);
      demand(isExact, `All ${last - first} sent meanwhile are accounted for`, route);
    }
    sent = await group.settle();
    if (recover !== undefined) await expectNewest(recover(), sent - 1);
  });
  const { rate, p99 } = compare(pairs);
  return {
    work: `${sent} messages to ${size.consumers} consumers, and one beside them that is ${name}`,
    figures: [
      share("rate of the others", rate, 0.95, 0.5),
      multiple("p99 of the others", p99, 2, 20),
      memory(peak - before, 4),
    ],
  };
}

/** What is queued for a consumer that has recovered arrives in order, up to the newest message. */
async function expectNewest(actor: Actor, newest: number): Promise<void> {
  const { disorder, corrupt } = await until(`message ${newest} arrives`, async () => {
    const receipt = await tell(actor);
    return receipt.last === newest && receipt;
  });
  demand(disorder + corrupt === 0, "What was queued arrives in order, once and whole");
}

export interface RestartSize {
  readonly messages: number;
  readonly restarts: number;
}

/** How many messages a lapsing consumer reads before it reads no more. */
const LAPSING_READS = 200;

/**
 * A good consumer gets every message in order, while one beside it is ended and started again and
 * again with its queue full: no process ever sees what was sent before it was started.
 */
export async function restarts(size: RestartSize): Promise<Outcome> {
  let [sent, seen] = [0, 0];
  await withDaemon(async (daemon) => {
    const group = await Group.start(daemon, "T");
    const id = await daemon.add(daemon.program("vice.ts", "lapsing", LAPSING_READS));
    await daemon.link(group.type, id);
    await group.resume();
    for (let restart = 0; restart < size.restarts; restart++) {
      const { received } = (await daemon.runtime(group.producer.id)).messages;
      const oldest = restart === 0 ? 0 : received; // what waits for the first start is kept
      const actor = await daemon.startActor(id);
      const { first, missing, disorder, corrupt } = await until("it has read", async () => {
        const receipt = await actor.ask<Receipt>({});
        return receipt.received === LAPSING_READS && receipt;
      });
      demand(first >= oldest, `It begins at message ${oldest} or later`, first);
      demand(missing + disorder + corrupt === 0, "What it reads is in order, once and whole");
      await until("its queue is not empty", async () => (await routeTo(daemon, id)).queued > 0);
      if (restart % 2 === 0) await daemon.stop(id);
      else process.kill(actor.pid, "SIGKILL");
      await daemon.ended(id);
      seen += LAPSING_READS;
    }
    await group.done(size.messages, 600_000);
    sent = await group.settle();
  });
  return { work: `${sent} messages, ${size.restarts} restarts that saw ${seen} more`, figures: [] };
}

/** Consumers that do not read are linked, started, stopped and removed again while messages flow. */
export async function removals(count: number): Promise<Outcome> {
  let sent = 0;
  await withDaemon(async (daemon) => {
    const group = await Group.start(daemon, "T");
    const program = daemon.program("vice.ts", "silent", "native");
    await group.resume();
    for (let i = 0; i < count; i++) {
      const id = await daemon.add(program);
      await daemon.link(group.type, id);
      await daemon.startActor(id);
      await until("messages wait for it", async () => (await routeTo(daemon, id)).queued > 0);
      await daemon.stop(id);
      await daemon.ok({ Remove: id });
    }
    sent = await group.settle();
    const { links } = await daemon.info();
    const left = links[group.type];
    demand(left?.length === 1, "Links go with their target", left);
  });
  return { work: `${count} consumers removed, ${sent} messages to another`, figures: [] };
}
