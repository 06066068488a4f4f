// The links of one orchestrator: what may be linked to what, other orchestrators as targets, and
// what is remembered of a link. How messages take them is the router's.

import { formatHostPort, plainAddress } from "./address.ts";
import type { DatagramSocket } from "./datagram.ts";
import { OrchestratorError } from "./errors.ts";
import type { LinkInfo } from "./protocol/info.ts";
import type { Journal } from "./journal.ts";
import { MAX_LINKS } from "./limits.ts";
import type { Batch, Memory } from "./memory.ts";
import {
  DEFAULT_LINK_SETTINGS,
  formatQueueBound,
  formatTarget,
  type InstanceId,
  type LinkKey,
  type LinkSettings,
  type LinkTarget,
} from "./model.ts";
import { blame, PeerTarget } from "./peer.ts";
import type { Target } from "./queue.ts";
import type { Link, Router } from "./router.ts";
import type { Translator } from "./message/translate.ts";

export interface LinksOptions {
  readonly router: Router;
  readonly memory: Memory;
  readonly journal: Journal;
  readonly translator: Translator;
  findTarget(id: InstanceId): Target | undefined;
  wallMs(): number;
}

export class Links {
  readonly #options: LinksOptions;
  readonly #peers: Map<string, PeerTarget> = new Map();
  /** Of those to which no link leads any more, the one that was sent to last: a report may be about it. */
  #gone: PeerTarget | undefined;
  /** Links of before that could not be made again: they are remembered until somebody removes them. */
  readonly #dormant: Map<string, LinkKey> = new Map();
  #socket: DatagramSocket | undefined;

  constructor(options: LinksOptions) {
    this.#options = options;
  }

  /** From now on links may lead to other orchestrators. */
  useSocket(socket: DatagramSocket): void {
    this.#socket = socket;
  }

  /** Something has arrived from another orchestrator, perhaps one that links lead to. */
  heard(host: string, port: number): void {
    const peer = this.#peers.size === 0 ? undefined : this.#peers.get(formatHostPort(host, port));
    if (peer !== undefined) peer.heardMs = this.#options.wallMs();
  }

  /** A datagram to one of the other orchestrators has found nobody. */
  foundNobody(): void {
    blame([...this.#peers.values()].concat(this.#gone ?? []), this.#options.wallMs());
  }

  /** Makes a link of before again. @throws `not_found` or `not_configured` */
  restore(key: LinkKey, settings: LinkSettings): void {
    const name = nameOf(key);
    this.#dormant.set(name, key);
    this.#options.router.addLink(key, this.#target(key.to, subject("link", key)), settings);
    this.#dormant.delete(name);
  }

  /** Every link, those included that no message takes because they could not be made again. */
  keys(): LinkKey[] {
    return [...this.#options.router.links()]
      .map(({ key }) => key)
      .concat(...this.#dormant.values());
  }

  /**
   * Adds a link; the same one again takes over the settings that are given, and keeps the others.
   * @throws `not_found`, `not_configured`, `limit_exceeded` or `io`
   */
  add(key: LinkKey, given: Partial<LinkSettings> = {}): void {
    const { router, memory, journal, findTarget } = this.#options;
    const known = router.findLink(key);
    if (known !== undefined) {
      if (Object.keys(given).length === 0) return;
      const before = known.queue.settings;
      router.addLink(key, known.target, given);
      const { settings } = known.queue;
      memory.change(
        (store) => store.putLink({ key, settings }),
        () => router.addLink(key, known.target, before),
      );
      return;
    }
    const refused = subject("link", key);
    if (key.from !== undefined && findTarget(key.from) === undefined) {
      throw unknown(refused, key.from);
    }
    if (router.linkCount >= MAX_LINKS) {
      throw new OrchestratorError(
        "limit_exceeded",
        `${refused}: there are ${MAX_LINKS} links, which is the limit; remove one first`,
      );
    }
    router.addLink(key, this.#target(key.to, refused), given);
    const settings = { ...DEFAULT_LINK_SETTINGS, ...given };
    memory.change(
      (store) => store.putLink({ key, settings }),
      () => router.removeLink(key),
    );
    journal.record("linked", undefined, fields(key));
  }

  /** @throws `not_found`, or `io` if it cannot be remembered */
  remove(key: LinkKey): Batch {
    const { router, memory, journal } = this.#options;
    const refused = subject("unlink", key);
    if (router.findLink(key) === undefined && !this.#dormant.has(nameOf(key))) {
      throw new OrchestratorError("not_found", `${refused}: there is no such link`);
    }
    const batch = memory.forget((store) => store.removeLink(key), refused);
    this.drop([key]);
    journal.record("unlinked", undefined, fields(key));
    return batch;
  }

  /** Removes links that the store has forgotten already. */
  drop(keys: readonly LinkKey[]): void {
    for (const key of keys) {
      this.#options.router.removeLink(key);
      this.#dormant.delete(nameOf(key));
    }
    this.#forgetPeers();
  }

  /** Every link with its accounts, sorted by type. */
  info(): LinkInfo[] {
    const infos = [...this.#options.router.links()].map(linkInfo);
    return infos.sort((a, b) =>
      a.type_name < b.type_name ? -1 : a.type_name > b.type_name ? 1 : 0,
    );
  }

  /** Other orchestrators to which no link leads any more. */
  #forgetPeers(): void {
    const used = new Set([...this.#options.router.links()].map(({ target }) => target));
    for (const [name, peer] of this.#peers) {
      if (used.has(peer)) continue;
      this.#peers.delete(name);
      if ((peer.sentMs ?? 0) >= (this.#gone?.sentMs ?? 0)) this.#gone = peer;
    }
  }

  #target(to: LinkTarget, refused: string): Target {
    const { findTarget, translator, wallMs } = this.#options;
    if (to.kind === "instance") {
      const target = findTarget(to.id);
      if (target === undefined) throw unknown(refused, to.id);
      return target;
    }
    if (this.#socket === undefined) {
      throw new OrchestratorError(
        "not_configured",
        `${refused}: this orchestrator was started without --ipc-socket`,
      );
    }
    const host = plainAddress(to.host); // a socket of IPv4 sends to no mapped address
    const name = formatHostPort(host, to.port);
    let peer = this.#peers.get(name);
    if (peer === undefined) {
      peer = new PeerTarget(this.#socket, host, to.port, translator, wallMs);
      this.#peers.set(name, peer);
    }
    return peer;
  }
}

function subject(verb: "link" | "unlink", { typeName, from, to }: LinkKey): string {
  const source = verb === "link" || from === undefined ? "" : ` from ${from}`;
  return `Cannot ${verb} ${JSON.stringify(typeName)}${source} to ${formatTarget(to)}`;
}

function unknown(refused: string, id: InstanceId): OrchestratorError {
  return new OrchestratorError("not_found", `${refused}: no instance with the id ${id}`);
}

function nameOf(key: LinkKey): string {
  return JSON.stringify(fields(key));
}

function fields({ from, typeName, to }: LinkKey): Pick<LinkInfo, "type_name" | "from" | "to"> {
  return { type_name: typeName, from: from ?? null, to: formatTarget(to) };
}

function linkInfo({ key, queue, target }: Link): LinkInfo {
  return {
    ...fields(key),
    queue: formatQueueBound(queue.settings),
    on_full: queue.settings.onFull,
    owner: queue.settings.owner,
    routed: queue.routed,
    delivered: queue.delivered,
    queued: queue.queued,
    dropped: Object.fromEntries(queue.dropped),
    ...(target instanceof PeerTarget ? { peer: target.info() } : {}),
  };
}
