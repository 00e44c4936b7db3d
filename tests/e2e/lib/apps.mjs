// Applications behind context roots: they know nothing of logins, show what they are told of their user, keep a little for each
// other in the user context, and call a service inside with the token that they were given.
import http from 'node:http';
import { listen } from './net.mjs';

/** The user context in `headers`; none of a stranger. */
export function contextOf(headers) {
  const value = headers['x-user-context'];
  return value && JSON.parse(Buffer.from(value, 'base64url'));
}

const escape = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

const page = (title, path, known) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title><link rel="icon" href="data:,"></head><body>
<h1>${title}</h1><p>Path: <code id="path">${escape(path)}</code></p>
<p><b id="user">${escape(known?.claims.name ?? 'nobody')}</b> is <b id="level">${known?.level ?? 'anonymous'}</b></p>
<pre id="kept">${escape(JSON.stringify(known?.attributes ?? null))}</pre></body></html>
`;

/**
 * Starts one. `POST …/keep` has the body, a JSON merge patch, kept in the user context; `GET …/orders` asks the service at
 * `inside`, a URL, in the name of `host`.
 */
export async function startApp(title, { inside, host }) {
  /** The headers of every request. */
  const seen = [];
  const server = http.createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { url, headers } = request;
    seen.push(headers);
    if (url.endsWith('/orders')) {
      const { status, text } = await get(inside, { host, ...(headers.authorization && { authorization: headers.authorization }) });
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(text);
      return;
    }
    response.writeHead(200, {
      'content-type': 'text/html; charset=utf-8',
      'cache-control': 'no-store',
      ...(url.endsWith('/keep') && { 'x-user-context-update': Buffer.from(body).toString('base64url') }),
    });
    response.end(page(title, url, contextOf(headers)));
  });
  const port = await listen(server);
  return {
    port,
    seen,
    /** The token of its last request. */
    token: () => /^Bearer (.+)$/.exec(seen.at(-1)?.authorization ?? '')?.[1],
    stop: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A GET with just these headers; `fetch` lets nobody set `Host`. */
export function get(url, headers) {
  return new Promise((resolve, reject) => {
    const sent = http.get(url, { headers, timeout: 10_000 }, async (answer) => {
      try {
        const text = Buffer.concat(await answer.toArray()).toString();
        resolve({ status: answer.statusCode, code: answer.headers['cloakroom-error'], text });
      } catch (error) {
        reject(error);
      }
    });
    sent.once('timeout', () => sent.destroy(new Error(`${url} does not answer`)));
    sent.once('error', reject);
  });
}
