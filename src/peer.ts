// Other orchestrators: messages as datagrams, without answer, acknowledgement or identity.
//
// A message that arrives is routed by our own links, as if an instance here had sent it. A link to
// another orchestrator is a target without a queue: the kernel takes a datagram or it is dropped.

import { formatHost, formatHostPort } from "./address.ts";
import { MAX_DATAGRAM_BYTES } from "./limits.ts";
import { messageChain, OrchestratorError } from "./errors.ts";
import type { DatagramSocket } from "./datagram.ts";
import type { QuietLog } from "./log.ts";
import { datagramOf, decodeDatagram, messageEnd, NO_REST, type Run } from "./message.ts";
import type { Translator } from "./message/translate.ts";
import type { PeerInfo } from "./protocol/info.ts";
import type { LinkQueue, Target } from "./queue.ts";
import { type Router, Source } from "./router.ts";

/** The line of the longest datagram: the outer object and the newline come on top. */
const MAX_LINE: number = MAX_DATAGRAM_BYTES + '{"Storable":}\n'.length;

/** One other orchestrator, as the target of links. */
export class PeerTarget implements Target {
  isTouched = false;
  /** What is known of it: nothing that UDP would promise. Times in ms since the epoch. */
  sentMs: number | undefined;
  heardMs: number | undefined;
  #refusedMs: number | undefined;
  #suspectedMs: number | undefined;
  /** When something was sent there first since the last report. */
  #unreportedMs: number | undefined;
  readonly #wallMs: () => number;
  readonly #socket: DatagramSocket;
  readonly #host: string;
  readonly #port: number;
  readonly #translator: Translator;

  constructor(
    socket: DatagramSocket,
    host: string,
    port: number,
    translator: Translator,
    wallMs: () => number,
  ) {
    this.#wallMs = wallMs;
    this.#translator = translator;
    this.#socket = socket;
    this.#host = host;
    this.#port = port;
  }

  push(queue: LinkQueue, run: Run): void {
    queue.routed += run.count;
    this.sentMs = this.#wallMs();
    this.#unreportedMs ??= this.sentMs;
    const { type, dialect, chunk, start, end, longest } = run;
    if (dialect === "veecle") {
      this.#send(queue, chunk, start, end);
      return;
    }
    for (let at = start; at < end;) {
      at = this.#translator.translate(type, dialect, chunk, at, end, longest, MAX_LINE);
      const { bytes, notUtf8, oversize } = this.#translator;
      queue.drop("not_utf8", notUtf8);
      queue.drop("oversize", oversize);
      this.#send(queue, bytes, 0, bytes.length);
    }
  }

  flush(): void {}

  forget(): void {}

  /** A datagram has found nobody: one that was sent there, or if that is not sure, perhaps another one. */
  foundNobody(nowMs: number, isSure: boolean): void {
    if (isSure) this.#refusedMs = nowMs;
    else this.#suspectedMs = nowMs;
    this.#unreportedMs = undefined;
  }

  info(): PeerInfo {
    const { sentMs = 0 } = this;
    // What is sent there finds somebody now, or is not answered any more.
    const isOver = sentMs - (this.#unreportedMs ?? sentMs) > REFUSAL_MS;
    return {
      heard: rounded(this.heardMs),
      refused: isOver ? null : rounded(this.#refusedMs),
      suspected: isOver ? null : rounded(this.#suspectedMs),
    };
  }

  /** Sends each line in `lines[start, end)` as one datagram. */
  #send(queue: LinkQueue, lines: Buffer, start: number, end: number): void {
    for (let at = start; at < end;) {
      const next = messageEnd("veecle", lines, at);
      const datagram = datagramOf(lines, at, next);
      at = next;
      if (datagram.length > MAX_DATAGRAM_BYTES) {
        queue.drop("oversize", 1);
        continue;
      }
      const result = this.#socket.send(datagram, this.#host, this.#port);
      if (result === "sent") queue.delivered++;
      else queue.drop(result === "full" ? "full" : "unreachable", 1);
    }
  }
}

function rounded(ms: number | undefined): number | null {
  return ms === undefined ? null : Math.round(ms);
}

/** So long after a datagram its host, or a router on the way, may answer that it found nobody. */
const REFUSAL_MS = 5_000;

/**
 * Notes at whom a report may be aimed that a datagram has found nobody: it does not tell to whom that
 * went. Whoever was heard since cannot be meant, and if only one is left, it is.
 */
export function blame(peers: Iterable<PeerTarget>, nowMs: number): void {
  const sinceMs = nowMs - REFUSAL_MS;
  const suspects = [...peers].filter(
    ({ sentMs = 0, heardMs = 0 }) => sentMs >= sinceMs && heardMs < sinceMs,
  );
  for (const peer of suspects) peer.foundNobody(nowMs, suspects.length === 1);
}

/** What arrives from other orchestrators. */
export class PeerReceiver {
  readonly source: Source = new Source(undefined);
  readonly #router: Router;
  readonly #quiet: QuietLog;
  /** Datagrams from where nobody was declared. */
  strangers = 0;
  /** Whom to listen to: addresses, or addresses with ports; undefined: everybody. */
  #declared: ReadonlySet<string> | undefined;

  constructor(router: Router, quiet: QuietLog) {
    this.#router = router;
    this.#quiet = quiet;
  }

  /** From now on listens to these only: `127.0.0.1`, `127.0.0.1:2661`, `::1`, `[::1]:2661`. */
  listenTo(declared: ReadonlySet<string>): void {
    this.#declared = declared;
  }

  /**
   * Routes one datagram from an address and port; a bad one, or one of a stranger, is counted and
   * changes nothing.
   */
  receive(datagram: Buffer, host: string, port: number): void {
    const from = formatHostPort(host, port);
    if (this.#declared?.has(host) === false && !this.#declared.has(from)) {
      this.strangers++;
      this.#quiet.warn(
        "stranger",
        "run",
        "refused datagrams of an orchestrator that is not declared",
        {
          from,
          refused: this.strangers,
          hint: `daemon --peer ${formatHost(host)}`,
        },
      );
      return;
    }
    try {
      const { type, line } = decodeDatagram(datagram);
      this.#router.route(this.source, {
        dialect: "veecle",
        type,
        chunk: line,
        start: 0,
        end: line.length,
        rest: NO_REST,
        count: 1,
        longest: line.length,
      });
    } catch (error) {
      if (!(error instanceof OrchestratorError)) throw error;
      this.source.received++;
      this.source.refused++;
      this.#quiet.warn("datagram", "run", "refused a datagram", {
        from,
        error: messageChain(error).join(": "),
      });
      return;
    }
    this.#router.flush();
  }
}
