// R22: one that breaks the protocol loses its connection and may come back at once; nobody else notices.

import { routeTo } from "../fixtures/accounts.ts";
import { withDaemon } from "../support/daemon.ts";
import { until } from "../support/wire.ts";
import { Group, tell } from "./group.ts";
import { demand, excessLines, logLines, type Outcome } from "./outcome.ts";

/** Ways to offend, see `vice.ts`, and whether each is counted as refused. */
export const OFFENCES = {
  malformed: true,
  malformedLines: true,
  cut: false,
  reset: false,
} as const;

export type Offence = keyof typeof OFFENCES;

/**
 * An instance begins well each time, with a numbered message, and then offends. Under load, all
 * these messages arrive, in order; it can always connect again, at once; the others lose nothing.
 */
export async function offend(offence: Offence, count: number): Promise<Outcome> {
  let [sent, excess] = [0, 0];
  await withDaemon(async (daemon) => {
    const group = await Group.start(daemon, "T");
    const [offender, listener] = [
      await daemon.actor("vice.ts", "offender"),
      await daemon.actor("player.ts"),
    ];
    await tell(listener, { consume: { type: "offender::Good", ack: "nobody::Listens", every: 1 } });
    await daemon.link("offender::Good", listener.id);
    if (offence === "reset") await daemon.link(group.type, offender.id);
    await group.resume();
    const [logged, beganMs] = [daemon.log.length, performance.now()];
    const { refused } = await offender.ask<{ refused: number }>({ offence, count }, 120_000);
    demand(refused === 0, "It may connect again at once", { refused, count });
    const found = await until("all that it sent before it offended has arrived", async () => {
      const receipt = await tell(listener);
      return receipt.received === count && receipt;
    });
    const { missing, disorder, corrupt } = found;
    demand(missing + disorder + corrupt === 0, "In order, once and whole", found);
    const { messages } = await daemon.runtime(offender.id);
    const wanted = OFFENCES[offence] ? count : 0;
    demand(messages.refused === wanted, `${wanted} are refused`, messages);
    excess = excessLines(daemon.log.slice(logged), performance.now() - beganMs);
    sent = await group.settle();
  });
  return { work: `${count} × ${offence}, ${sent} messages of others`, figures: [logLines(excess)] };
}

/** A second connection is closed at once, whatever it sends, and the first one goes on. */
export async function double(count: number): Promise<Outcome> {
  let sent = 0;
  await withDaemon(async (daemon) => {
    const group = await Group.start(daemon, "T");
    const doubler = await daemon.actor("vice.ts", "doubler");
    const listener = await daemon.actor("player.ts");
    await daemon.link("offender::Good", listener.id);
    await group.resume();
    await doubler.ask({ count }, 120_000);
    const { received } = (await daemon.runtime(doubler.id)).messages;
    demand(received === 0, "Nothing is read from a second connection", received);
    demand((await routeTo(daemon, listener.id)).routed === 0, "Nothing of it is routed");
    demand((await daemon.runtime(doubler.id)).connected, "The first connection is still there");
    sent = await group.settle();
  });
  return { work: `${count} second connections, ${sent} messages of others`, figures: [] };
}
