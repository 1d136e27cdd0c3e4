// Signs in on the gateway's page as people do, and as attackers would have them do. Prints `ok` lines; exits with 1 and
// the reason when something is not as promised.
//
// Takes one argument in JSON: chromium (its path), gateway and slow (the URLs of two gateways, of which the second allows
// one sign-in request), keys (two wallets' private keys), screens (a folder for screenshots, or null).

import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import path from 'node:path'
import axe from 'axe-core'
import { chromium } from 'playwright-core'
import { install } from './wallet.mjs'

const given = JSON.parse(process.argv[2])
const LOGIN = '/v1/auth/login'
const fox = { name: 'Test Fox', key: given.keys[0] }
const OWL_ICON = 'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" fill="%23334e9b"/><circle cx="11" cy="15" r="5" fill="white"/><circle cx="21" cy="15" r="5" fill="white"/></svg>'
const owl = { name: 'Night Owl', key: given.keys[1], icon: OWL_ICON }
const browser = await chromium.launch({ executablePath: given.chromium, args: ['--no-sandbox'] })

/** A fresh page with wallets; anything that the browser complains about on it fails the test. */
async function visit (wallets, query, { gateway = given.gateway, tolerate = [], ...options } = {}) {
  const context = await browser.newContext(options)
  // A busy machine may take its time; nothing waits for it when all is well.
  context.setDefaultTimeout(120_000)
  const page = await context.newPage()
  const complaints = []
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('console', (message) => {
    if (message.type() === 'error' && !tolerate.some((text) => message.text().includes(text))) complaints.push(message.text())
  })
  page.on('dialog', (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss() })
  await install(context, wallets)
  const response = await page.goto(gateway + LOGIN + query)
  return { page, context, complaints, response, close: async () => { await context.close(); assert.deepEqual(complaints, []) } }
}

const wallet = (page, name) => page.getByRole('button', { name })
const failure = async (page) => { await page.locator('#failed').waitFor(); return await page.locator('#failure').textContent() }
const done = (page) => page.locator('#done').waitFor()
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth)

/** What axe-core finds wrong for people who see, hear or move differently. */
async function assertAccessible (page, what) {
  await page.evaluate(axe.source)
  const { violations } = await page.evaluate(() => window.axe.run())
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`), [], what)
}

/** The CLI's side: a server that is called back once. */
async function program () {
  const calls = []
  const server = http.createServer((request, response) => {
    calls.push(request.url)
    response.end('The program has what it needs.')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const callback = `http://127.0.0.1:${server.address().port}/callback?from=test`
  return { calls, callback, close: () => server.close() }
}

/** How the page comes into each of its states. */
const states = {
  wallets: { wallets: [fox, owl], query: '?callback=http%3A%2F%2F127.0.0.1%3A8765%2Fcallback&state=abc&namespace=browser-app', ready: '#wallets button' },
  'no-wallet': { wallets: [], query: '', ready: '#no-wallet' },
  signing: { wallets: [{ ...fox, behaviour: 'wait' }], query: '?namespace=browser-app', click: true, ready: '#step' },
  refused: { wallets: [{ ...fox, behaviour: 'refuse' }], query: '?namespace=browser-app', click: true, ready: '#failed' },
  done: { wallets: [fox], query: '?namespace=browser-app', click: true, ready: '#done' },
  'bad-link': { wallets: [], query: '?callback=https://evil.example&state=a', ready: '[role=alert]' }
}

const tests = {
  async 'signs in, and the program gets the key and its state back' () {
    const cli = await program()
    const query = `?callback=${encodeURIComponent(cli.callback)}&state=st_-42&namespace=browser-app`
    const { page, close } = await visit([fox, owl], query)
    assert.equal(await page.locator('#wallets button').count(), 2)
    assert.equal(await page.getByLabel('Namespace').inputValue(), 'browser-app')
    await wallet(page, 'Test Fox').click()
    await page.waitForURL(/\/callback/)
    const url = new URL(cli.calls.find((call) => call.startsWith('/callback')), cli.callback)
    const result = Object.fromEntries(url.searchParams)
    assert.equal(result.from, 'test')
    assert.equal(result.state, 'st_-42')
    assert.match(result.api_key, /^ak_[0-9a-f]{48}:browser-app$/)
    assert.match(result.refresh_token, /^rt_[0-9a-f]{64}$/)
    assert.equal(result.namespace, 'browser-app')
    assert.match(result.wallet, /^0x[0-9a-f]{40}$/)
    assert.equal(result.plan, 'free')
    assert.ok(Date.parse(result.expires_at) > Date.now())
    const answer = await fetch(`${given.gateway}/v1/auth/whoami`, { headers: { 'X-API-Key': result.api_key } })
    const me = await answer.json()
    assert.deepEqual([answer.status, me.namespace, me.wallet], [200, 'browser-app', result.wallet])
    // The page with the sign-in is not one step back.
    await page.goBack().catch(() => null)
    assert.ok(!page.url().includes('api_key'), page.url())
    await close()
    cli.close()
  },

  async 'what the wallet signs names this gateway and the namespace' () {
    const { page, close } = await visit([fox], '?namespace=browser-app')
    await wallet(page, 'Test Fox').click()
    await done(page)
    const asked = await page.evaluate(() => window.askedOfWallets)
    const signed = asked.find(({ method }) => method === 'personal_sign')
    const text = Buffer.from(signed.params[0].slice(2), 'hex').toString()
    const host = new URL(given.gateway).host
    assert.ok(text.startsWith(`${host} wants you to sign in with your Ethereum account:\n0x`), text)
    assert.ok(text.includes('namespace browser-app') && text.includes(`URI: ${given.gateway}${LOGIN}`), text)
    await close()
  },

  async 'without a callback the key is shown and can be copied' () {
    const { page, context, close } = await visit([fox], '')
    await context.grantPermissions(['clipboard-read', 'clipboard-write'])
    await page.getByLabel('Namespace').fill('browser-app')
    await wallet(page, 'Test Fox').click()
    await done(page)
    const key = await page.getByLabel('API key').inputValue()
    assert.match(key, /^ak_[0-9a-f]{48}:browser-app$/)
    await page.getByRole('button', { name: 'Copy' }).click()
    await page.getByRole('button', { name: 'Copied' }).waitFor()
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), key)
    assert.ok((await page.locator('#example').textContent()).includes(`${given.gateway}/v1/auth/whoami`))
    assert.ok(!page.url().includes('ak_'))
    await close()
  },

  async 'a wallet that speaks through window.ethereum alone is found' () {
    const { page, close } = await visit([{ ...fox, announce: false }], '?namespace=browser-app')
    await wallet(page, 'Browser wallet').click()
    await done(page)
    await close()
  },

  async 'the keyboard is enough' () {
    const { page, close } = await visit([fox], '?namespace=browser-app')
    await wallet(page, 'Test Fox').focus()
    await page.keyboard.press('Enter')
    await done(page)
    assert.equal(await page.evaluate(() => document.activeElement.id), 'title')
    await close()
  },

  async 'no wallet: the page says what to do' () {
    const { page, close } = await visit([], '')
    await page.locator('#no-wallet').waitFor()
    const text = await page.locator('#no-wallet').textContent()
    assert.ok(text.includes('No wallet') && text.includes('network-cli auth login --keystore'), text)
    assert.equal(await page.getByRole('status').textContent(), 'No wallet was found in this browser.')
    await close()
  },

  async 'the user refuses, then signs' () {
    const { page, close } = await visit([{ ...fox, behaviour: 'refuse-once' }], '?namespace=browser-app')
    await wallet(page, 'Test Fox').click()
    assert.match(await failure(page), /You refused/)
    await page.getByRole('button', { name: 'Try again' }).click()
    await done(page)
    await close()
  },

  async 'a request is pending in the wallet' () {
    const { page, close } = await visit([{ ...fox, behaviour: 'pending' }], '')
    await wallet(page, 'Test Fox').click()
    assert.match(await failure(page), /already waiting in Test Fox/)
    await close()
  },

  async 'account or chain change during the sign-in' () {
    for (const [behaviour, words] of [['change-account', /account was changed/], ['change-chain', /network was changed/]]) {
      const { page, close } = await visit([{ ...fox, behaviour }], '')
      await wallet(page, 'Test Fox').click()
      assert.match(await failure(page), words)
      await close()
    }
  },

  async 'the nonce expires while the wallet waits' () {
    const { page, close } = await visit([{ ...fox, behaviour: 'wait' }], '?namespace=browser-app')
    await page.clock.install()
    await wallet(page, 'Test Fox').click()
    await page.waitForFunction(() => window.signNow)
    await page.clock.fastForward('05:01')
    await page.evaluate(() => window.signNow())
    assert.match(await failure(page), /good for 5 minutes/)
    await page.getByRole('button', { name: 'Try again' }).waitFor()
    await close()
  },

  async 'a sign-in can be cancelled' () {
    const { page, close } = await visit([{ ...fox, behaviour: 'wait' }], '')
    await wallet(page, 'Test Fox').click()
    await page.getByRole('button', { name: 'Cancel' }).click()
    assert.match(await failure(page), /cancelled/)
    await page.getByRole('button', { name: 'Choose another wallet' }).click()
    await wallet(page, 'Test Fox').waitFor()
    await close()
  },

  async 'a namespace of another wallet, and a signature of another key, are told' () {
    const tolerate = ['status of 40']
    const taken = await visit([owl], '?namespace=browser-app', { tolerate })
    await wallet(taken.page, 'Night Owl').click()
    assert.match(await failure(taken.page), /belongs to somebody else/)
    await taken.close()
    const forged = await visit([{ ...fox, behaviour: 'other-key' }, owl], '?namespace=browser-app', { tolerate })
    await wallet(forged.page, 'Test Fox').click()
    assert.match(await failure(forged.page), /The gateway refused/)
    await forged.close()
  },

  async 'too many attempts: the page says how long to wait' () {
    const { page, close } = await visit([fox], '', { gateway: given.slow, tolerate: ['429'] })
    await wallet(page, 'Test Fox').click()
    assert.match(await failure(page), /Too many attempts\. Wait \d+ seconds/)
    await page.getByRole('button', { name: /Try again in \d+ s/ }).waitFor()
    await close()
  },

  async 'the gateway does not answer' () {
    const { page, context, close } = await visit([fox], '', { tolerate: ['ERR_INTERNET_DISCONNECTED'] })
    await wallet(page, 'Test Fox').waitFor()
    await context.setOffline(true)
    await wallet(page, 'Test Fox').click()
    assert.match(await failure(page), /does not answer/)
    await close()
  },

  async 'a hostile address gets an error page: no script, no way out' () {
    const hostile = [
      '?callback=https://evil.example&state=a',
      "?callback=';alert(1)//&state=a",
      '?callback=javascript:alert(1)&state=a',
      '?callback=http://127.0.0.1:80@evil.example/&state=a',
      '?callback=http://127.0.0.1:80&state=%22%3E%3Cscript%3Ealert(1)%3C/script%3E',
      '?callback=http://127.0.0.1:80',
      '?namespace=%3Cimg%20src=x%20onerror=alert(1)%3E',
      '?next=https://evil.example'
    ]
    for (const query of hostile) {
      const { page, response, close } = await visit([fox], query, { tolerate: ['status of 400'] })
      assert.equal(response.status(), 400, query)
      await page.getByRole('heading', { name: 'This sign-in link cannot be used' }).waitFor()
      assert.equal(await page.locator('script, button, input').count(), 0)
      assert.equal(new URL(page.url()).origin, given.gateway)
      assert.deepEqual(await page.evaluate(() => window.askedOfWallets), [])
      await close()
    }
  },

  async 'the script refuses what the gateway would have refused' () {
    const { page, close } = await visit([fox], '')
    // As if something on the way had let it through: the page itself, under a hostile address.
    await page.route(/\/v1\/auth\/login\?/, async (route) => {
      await route.fulfill({ response: await route.fetch({ url: given.gateway + LOGIN }) })
    })
    for (const query of ['?callback=https://evil.example&state=a', '?callback=http://127.0.0.1:80@evil.example/&state=a', '?callback=http://127.0.0.1:80', '?namespace=<b>']) {
      await page.goto(given.gateway + LOGIN + query)
      await page.getByRole('heading', { name: 'This sign-in link cannot be used' }).waitFor()
      assert.equal(await page.getByRole('button').count(), 0, query)
    }
    await close()
  },

  async 'a hostile wallet puts nothing into the page' () {
    const evil = { ...fox, name: '<img src=x onerror=alert(1)>', icon: 'https://evil.example/icon.png' }
    const { page, close } = await visit([evil], '')
    await wallet(page, '<img').waitFor()
    assert.equal(await page.locator('#wallets img').count(), 0)
    await close()
  },

  async 'nothing is loaded from elsewhere, and the policy forbids it' () {
    const loaded = []
    const { page, response, close } = await visit([fox], '', { tolerate: ['Content Security Policy'] })
    page.on('request', (request) => loaded.push(request.url()))
    await page.reload()
    await wallet(page, 'Test Fox').waitFor()
    assert.ok(loaded.length >= 5 && loaded.every((url) => url.startsWith(`${given.gateway}${LOGIN}`) || url.startsWith('data:')), loaded.join('\n'))
    assert.match(response.headers()['content-security-policy'], /default-src 'none'/)
    const blocked = await page.evaluate(async () => {
      const script = document.createElement('script')
      script.textContent = 'window.injected = true'
      document.body.append(script)
      const elsewhere = await fetch('https://evil.example/').then(() => 'sent', () => 'blocked')
      return [window.injected, elsewhere]
    })
    assert.deepEqual(blocked, [undefined, 'blocked'])
    await close()
  },

  async 'every state of it is accessible, in light and dark' () {
    for (const colorScheme of ['light', 'dark']) {
      for (const [state, { wallets, query, click, ready }] of Object.entries(states)) {
        const { page, context } = await visit(wallets, query, { colorScheme })
        if (click) await page.locator('#wallets button').first().click()
        await page.locator(ready).first().waitFor()
        await assertAccessible(page, `${state}, ${colorScheme}`)
        await context.close()
      }
    }
  },

  async 'it fits on narrow screens' () {
    for (const [wallets, query] of [[[fox, owl], ''], [[], '']]) {
      const { page, close } = await visit(wallets, query, { viewport: { width: 320, height: 640 } })
      await page.locator(wallets.length ? '#wallets button' : '#no-wallet').first().waitFor()
      assert.ok(await fits(page))
      if (wallets.length) {
        await page.getByLabel('Namespace').fill('browser-app')
        await wallet(page, 'Test Fox').click()
        await done(page)
        assert.ok(await fits(page), 'with the key')
      }
      await close()
    }
  }
}

async function screenshots (folder) {
  const sizes = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } }
  for (const [size, viewport] of Object.entries(sizes)) {
    for (const colorScheme of ['light', 'dark']) {
      for (const [state, { wallets, query, click, ready }] of Object.entries(states)) {
        const { page, context } = await visit(wallets, query, { viewport, colorScheme })
        if (click) await page.locator('#wallets button').first().click()
        await page.locator(ready).first().waitFor()
        if (state === 'signing') await page.waitForFunction(() => window.signNow)
        await page.screenshot({ path: path.join(folder, `${size}-${colorScheme}-${state}.png`), fullPage: true })
        await context.close()
      }
    }
  }
}

try {
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test()
    } catch (error) {
      error.message = `${name}: ${error.message}`
      throw error
    }
    console.log(`ok ${name}`)
  }
  if (given.screens) await screenshots(given.screens)
} finally {
  await browser.close()
}
