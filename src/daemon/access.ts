// From the daemon's options to who may control it, and how its TCP socket is encrypted.

import { formatAddress, isLoopbackHost } from "../address.ts";
import { Access } from "../control/access.ts";
import { isForEverybody, readPem, readSecret, versionOf } from "../files/secret.ts";
import { messageChain, OrchestratorError } from "../errors.ts";
import type { Host } from "../host.ts";
import { SocketOwners } from "../host/credentials.ts";
import { CERTIFICATE_LOOK_MS } from "../limits.ts";
import { QuietLog, type TargetLog } from "../log.ts";
import type { Listener, ServerTls } from "../socket.ts";
import type { DaemonOptions } from "./options.ts";

/**
 * Who may control this daemon. From other machines only those who show a token, unless it was said
 * that everybody may.
 * @throws `misuse` if that is not said; what `readSecret` throws
 */
export function openAccess(
  { control, tokenFile, insecureTcp, tlsClientCa }: DaemonOptions,
  log: QuietLog,
): Access {
  const isOpen = insecureTcp === true || tlsClientCa !== undefined; // who has no certificate gets nowhere
  let token = tokenFile === undefined ? undefined : readSecret(tokenFile);
  const isReachable = control.kind === "tcp" && !isLoopbackHost(control.host);
  if (isReachable && token === undefined && !isOpen) {
    throw new OrchestratorError(
      "misuse",
      `Cannot listen on ${formatAddress(control)}: other machines reach it, and there is no token`,
      { hint: 'make one with "token new FILE" and add --token-file FILE; or add --insecure-tcp' },
    );
  }
  const owners = new SocketOwners();
  return new Access({
    uid: process.getuid?.() ?? 0,
    token: () => {
      try {
        if (tokenFile !== undefined) token = readSecret(tokenFile); // it may have been replaced
      } catch (error) {
        log.warn("token", "run", "cannot read the token again, and go on with that of before", {
          error: messageChain(error).join(": "),
        });
      }
      return token;
    },
    isInsecure: isOpen,
    ownerOf: ({ local, remote }) => owners.ownerOf(remote, local), // the peer's end of it
  });
}

/**
 * The certificates of a TCP control socket, if it has any.
 * @throws `misuse` without a TCP control socket; `io` for a file that cannot be read
 */
export function readTls({
  control,
  tlsCert,
  tlsKey,
  tlsClientCa,
}: DaemonOptions): ServerTls | undefined {
  if (tlsCert === undefined || tlsKey === undefined) return undefined;
  if (control.kind !== "tcp") {
    throw new OrchestratorError(
      "misuse",
      "Cannot use TLS on a Unix path: it never leaves the machine",
    );
  }
  return {
    cert: readPem(tlsCert),
    key: readPem(tlsKey),
    clientCa: tlsClientCa === undefined ? undefined : readPem(tlsClientCa),
  };
}

/**
 * Takes certificates that were renewed, without a signal: looks at their files now and then. What cannot
 * be used is told once, and those of before stay. The returned function ends it.
 */
export function renewTls(
  options: DaemonOptions,
  shown: ServerTls,
  listener: Listener,
  log: TargetLog,
  after: Host["after"],
): () => void {
  const { tlsCert, tlsKey, tlsClientCa } = options;
  const files = [tlsCert, tlsKey, tlsClientCa].filter((file) => file !== undefined);
  let current = shown;
  let taken: string | undefined;
  let last: string | undefined;
  let refused: string | undefined;
  let hasEnded = false;
  const take = (found: string): void => {
    try {
      const next = readTls(options) as ServerTls;
      if (!isSame(next, current)) {
        listener.renew?.(next);
        log.info("run", "took certificates that were renewed", { file: tlsCert });
      }
      [current, taken] = [next, found];
      warnOfKey(options, log);
    } catch (error) {
      if (refused === found) return;
      refused = found;
      log.warn("run", "cannot take certificates that were renewed, and keep those of before", {
        error: messageChain(error).join(": "),
      });
    }
  };
  const look = async (): Promise<void> => {
    const found = await versionOf(files);
    if (hasEnded) return;
    // A certificate and its key are written one after the other.
    if (found === last && found !== taken) take(found);
    last = found;
    cancel = after(CERTIFICATE_LOOK_MS, () => void look());
  };
  let cancel = after(CERTIFICATE_LOOK_MS, () => void look());
  return () => {
    hasEnded = true;
    cancel();
  };
}

/** Says so if the key is one that everybody may read; it is taken all the same, as mounts of secrets are. */
export function warnOfKey({ tlsKey }: DaemonOptions, log: TargetLog): void {
  if (tlsKey === undefined || !isForEverybody(tlsKey)) return;
  log.warn("run", "every user of this machine may read the key of the control socket", {
    file: tlsKey,
    hint: `chmod o-r ${tlsKey}, unless its folder keeps others out`,
  });
}

function isSame(a: ServerTls, b: ServerTls): boolean {
  return a.cert === b.cert && a.key === b.key && a.clientCa === b.clientCa;
}

/** Tells in the log, at most once a second, who has not come through a TLS handshake. */
export function handshakeLog(
  log: TargetLog,
  now: () => number,
): (peer: string, reason: string) => void {
  const quiet = new QuietLog(log, now);
  return (peer, error) => {
    const fields = { "connection.peer": peer, error };
    quiet.warn("handshake", "run:connection", "refused a TLS handshake", fields);
  };
}

/** What somebody should know of a control socket that other machines reach; undefined: nothing. */
export function tcpWarning({ control, insecureTcp, tlsCert }: DaemonOptions): string | undefined {
  if (control.kind !== "tcp" || isLoopbackHost(control.host)) return undefined;
  if (insecureTcp === true) {
    return "everybody who reaches the TCP control socket controls this daemon";
  }
  return tlsCert === undefined
    ? "the TCP control socket is not encrypted: add --tls-cert and --tls-key, or use a tunnel"
    : undefined;
}
