// The application behind the proxy: a page and an API that remember the headers of every request they got.
import http from 'node:http';
import { listen } from './net.mjs';

/**
 * The claims of the bearer token in `headers`, read without any check: the proxy's job is what is under test. None if there
 * is no token, or one that is no JWT.
 */
export function claimsOf(headers) {
  const claims = tokenOf(headers)?.split('.')[1];
  return claims ? JSON.parse(Buffer.from(claims, 'base64url')) : undefined;
}

/** The access token in `headers`, bound to a key or not. */
export function tokenOf(headers) {
  return /^(?:Bearer|DPoP) (.+)$/.exec(headers.authorization ?? '')?.[1];
}

const page = (title, user, path) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title><link rel="icon" href="data:,"></head>
<body><h1>${title}</h1><p>User: <b id="user">${user}</b></p><p>Path: <code id="path">${path}</code></p></body></html>
`;

const escape = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

/** `pages` are HTML by path; all others that are not of the API say who the user is. */
export async function startUpstream(pages = {}) {
  /** Every request: method, path, headers, body. */
  const seen = [];
  const server = http.createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { method, url, headers } = request;
    seen.push({ method, path: url, headers, body });
    if (url.startsWith('/api/')) {
      const claims = claimsOf(headers);
      response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' });
      response.end(JSON.stringify({ method, path: url, user: claims?.preferred_username ?? headers['x-user-name'] ?? null }));
    } else {
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
      const own = pages[url.split('?')[0]];
      response.end(own ?? page('The application', escape(headers['x-user-name'] ?? 'nobody'), escape(url)));
    }
  });
  const port = await listen(server);
  return {
    port,
    seen,
    /** Requests whose path begins with `path`. */
    at: (path) => seen.filter((request) => request.path.startsWith(path)),
    /** Every access token that ever came here. */
    tokens: () => [...new Set(seen.map((request) => tokenOf(request.headers)).filter(Boolean))],
    stop: () => close(server),
  };
}

/** Another site altogether: one page with one link to `target`. */
export async function startElsewhere(target) {
  const server = http.createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    response.end(`<!doctype html><title>Elsewhere</title><link rel="icon" href="data:,"><a href="${target}">over there</a>`);
  });
  const port = await listen(server);
  return { url: `http://127.0.0.1:${port}/`, stop: () => close(server) };
}

function close(server) {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(resolve));
}
