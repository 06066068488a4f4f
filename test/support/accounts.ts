// The law of the accounts: every message that was received is somewhere, at every moment (P-37).

import type { Info, LinkInfo } from "../../src/protocol/info.ts";

/** How many messages of a link were dropped, for whatever reason. */
export function droppedOf({ dropped }: Pick<LinkInfo, "dropped">): number {
  return Object.values(dropped).reduce((sum, count) => sum + count, 0);
}

/**
 * Checks what must hold in every answer to `Info`: for each link routed = delivered + queued + dropped,
 * and no instance has more messages without a link or refused than it sent.
 */
export function checkAccounts({ runtimes, routes }: Pick<Info, "runtimes" | "routes">): void {
  for (const route of routes) {
    const { routed, delivered, queued } = route;
    const isWhole = [delivered, queued, ...Object.values(route.dropped)].every((n) => n >= 0);
    if (isWhole && routed === delivered + queued + droppedOf(route)) continue;
    throw new Error(`The accounts of a link do not add up: ${JSON.stringify(route)}`);
  }
  for (const [id, { messages }] of Object.entries(runtimes)) {
    const { received, unlinked, refused } = messages;
    if (received >= unlinked + refused) continue;
    throw new Error(`The accounts of instance ${id} do not add up: ${JSON.stringify(messages)}`);
  }
}
