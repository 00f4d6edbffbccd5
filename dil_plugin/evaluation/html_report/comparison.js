'use strict';
// Two versions of an image over one another, with a divider; or the map of their differences.
(() => {
  const get = (id) => document.getElementById(id);
  const root = get('comparison'), controls = get('viewing');
  if (!root) return;
  const strips = [...document.querySelectorAll('#strips .strip')];
  const picture = get('picture'), sides = {left: get('left'), right: get('right')};
  const images = {left: get('left-image'), right: get('right-image')};
  const labels = {left: get('left-label'), right: get('right-label')};
  const viewport = get('viewport'), layers = get('layers'), divider = get('divider'), stage = get('stage');
  const map = get('error-map'), gain = get('gain');
  const state = {fraction: 0.5, zoom: 1, mode: 'divider'};
  let versions = [], size = {width: 1, height: 1};
  let drawn = 0;

  // Eleven colours of matplotlib's inferno map (van der Walt and Smith, 2015), straight lines between them.
  const anchors = [[0, 0, 3], [23, 11, 59], [65, 9, 103], [106, 23, 110], [147, 37, 103], [187, 55, 84],
    [220, 80, 57], [242, 117, 26], [251, 164, 10], [245, 215, 69], [252, 254, 164]];
  const colours = Array.from({length: 256}, (_, level) => {
    const place = level / 255 * (anchors.length - 1), low = Math.min(Math.floor(place), anchors.length - 2);
    return anchors[low].map((value, k) => Math.round(value + (anchors[low + 1][k] - value) * (place - low)));
  });

  function show() {
    const width = viewport.clientWidth;
    const x = Math.round(viewport.scrollLeft + state.fraction * width);
    // open on three sides: where the page places the image at half a pixel, its last row would be blended
    images.right.style.clipPath = `inset(-1px -1px -1px ${x}px)`;
    divider.style.left = `${x - viewport.scrollLeft}px`;
    divider.style.height = `${viewport.clientHeight}px`;
    const percent = Math.round(state.fraction * 100);
    divider.setAttribute('aria-valuenow', percent);
    divider.setAttribute('aria-valuetext', `${percent} % ${sides.left.value}, ${100 - percent} % ${sides.right.value}`);
  }

  function move(fraction) {
    state.fraction = Math.min(1, Math.max(0, fraction));
    show();
  }

  function layOut(zoom) {
    const before = layers.offsetWidth || 1;
    const centre = [viewport.scrollLeft + viewport.clientWidth / 2, viewport.scrollTop + viewport.clientHeight / 2];
    state.zoom = zoom;
    root.style.width = `${size.width * zoom}px`;  // the style sheet keeps it inside the page
    layers.style.width = `${size.width * zoom}px`;
    layers.style.height = `${size.height * zoom}px`;
    // the middle stays in the middle
    const factor = size.width * zoom / before;
    viewport.scrollLeft = centre[0] * factor - viewport.clientWidth / 2;
    viewport.scrollTop = centre[1] * factor - viewport.clientHeight / 2;
    const still = viewport.scrollWidth <= viewport.clientWidth;
    // where there is nothing to scroll to sideways, a finger anywhere moves the divider
    layers.style.touchAction = still ? 'pan-y pinch-zoom' : 'auto';
    show();
  }

  function pixels(image) {
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  async function drawErrors() {
    const turn = ++drawn;
    await Promise.all([images.left.decode(), images.right.decode()]);
    if (turn !== drawn) return;  // another pair was chosen meanwhile
    const a = pixels(images.left), b = pixels(images.right);
    const out = new ImageData(a.width, a.height);
    const factor = Number(gain.value);
    let sum = 0, largest = 0;
    for (let k = 0; k < a.data.length; k += 4) {
      let worst = 0;
      for (let channel = k; channel < k + 3; channel++) {
        const difference = Math.abs(a.data[channel] - b.data[channel]);
        sum += difference;
        worst = Math.max(worst, difference);
      }
      largest = Math.max(largest, worst);
      out.data.set(colours[Math.min(255, worst * factor)], k);
      out.data[k + 3] = 255;
    }
    map.width = a.width;
    map.height = a.height;
    map.getContext('2d').putImageData(out, 0, 0);
    const mean = (sum / (a.width * a.height * 3)).toFixed(2);
    get('top').textContent = `${Math.floor(255 / factor)} of 255`;
    const pair = `|${sides.left.value} − ${sides.right.value}|`;
    get('reading').textContent = `${pair}: mean ${mean}, largest ${largest}`;
    map.setAttribute('aria-label', `Largest difference of the channels, ${sides.left.value} and ${sides.right.value}`);
    map.dataset.ready = `${sides.left.value}|${sides.right.value}|${factor}`;
  }

  function showMode() {
    const error = state.mode === 'error';
    map.hidden = get('scale').hidden = !error;
    divider.hidden = root.querySelector('.hint').hidden = error;
    layers.classList.toggle('still', error);
    if (error) drawErrors();
  }

  function chooseVersions() {
    for (const side of ['left', 'right']) {
      const version = versions.find((one) => one.dataset.name === sides[side].value);
      images[side].src = version.src;
      images[side].alt = `${version.dataset.name}, ${side} of the divider`;
      labels[side].textContent = version.dataset.name + (version.dataset.score ? `: ${version.dataset.score}` : '');
    }
    show();
    showMode();
  }

  function choosePicture() {
    const strip = strips[picture.value];
    strips.forEach((one) => one.classList.toggle('current', one === strip));
    const wanted = {left: sides.left.value, right: sides.right.value};
    versions = [...strip.querySelectorAll('img')];
    size = {width: Number(versions[0].getAttribute('width')), height: Number(versions[0].getAttribute('height'))};
    const names = versions.map((version) => version.dataset.name);
    const usual = {left: names[0], right: names[Math.max(0, names.length - 2)]};
    for (const side of ['left', 'right']) {
      sides[side].replaceChildren(...names.map((name) => new Option(name, name)));
      sides[side].value = names.includes(wanted[side]) ? wanted[side] : usual[side];
    }
    get('region').textContent = strip.dataset.region;
    chooseVersions();
    layOut(state.zoom);
  }

  function dragTo(event) {
    const box = viewport.getBoundingClientRect();
    move((event.clientX - box.left) / viewport.clientWidth);
  }

  function startDrag(event) {
    if (state.mode !== 'divider' || event.button !== 0) return;
    const box = viewport.getBoundingClientRect();
    const onBar = event.clientX - box.left >= viewport.clientWidth || event.clientY - box.top >= viewport.clientHeight;
    const onDivider = divider.contains(event.target);
    const pans = event.pointerType !== 'mouse' && viewport.scrollWidth > viewport.clientWidth;
    if (!onDivider && (onBar || pans)) return;
    event.preventDefault();
    divider.focus({preventScroll: true});
    stage.setPointerCapture(event.pointerId);
    stage.addEventListener('pointermove', dragTo);
    dragTo(event);
  }

  function press(event) {
    const step = event.shiftKey ? 0.1 : 0.01;
    const to = {
      ArrowLeft: state.fraction - step, ArrowDown: state.fraction - step,
      ArrowRight: state.fraction + step, ArrowUp: state.fraction + step,
      PageDown: state.fraction - 0.1, PageUp: state.fraction + 0.1, Home: 0, End: 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(to);
  }

  stage.addEventListener('pointerdown', startDrag);
  for (const end of ['pointerup', 'pointercancel', 'lostpointercapture']) {
    stage.addEventListener(end, () => stage.removeEventListener('pointermove', dragTo));
  }
  divider.addEventListener('keydown', press);
  viewport.addEventListener('scroll', show);
  new ResizeObserver(show).observe(viewport);
  picture.addEventListener('change', choosePicture);
  sides.left.addEventListener('change', chooseVersions);
  sides.right.addEventListener('change', chooseVersions);
  gain.addEventListener('change', drawErrors);
  controls.querySelectorAll('[name=zoom]').forEach((input) => {
    input.addEventListener('change', () => layOut(Number(input.value)));
  });
  controls.querySelectorAll('[name=mode]').forEach((input) => {
    input.addEventListener('change', () => {
      state.mode = input.value;
      const method = sides.right.value, clean = versions[versions.length - 1].dataset.name;
      if (state.mode === 'error' && ![sides.left.value, method].includes(clean)) {  // the error of what is restored
        sides.left.value = method;
        sides.right.value = clean;
        chooseVersions();
      } else {
        showMode();
      }
    });
  });

  const ramp = get('ramp').getContext('2d');
  colours.forEach((colour, x) => { ramp.fillStyle = `rgb(${colour})`; ramp.fillRect(x, 0, 1, 1); });
  root.hidden = controls.hidden = false;
  get('strips').classList.add('enhanced');
  choosePicture();
  layOut(controls.clientWidth >= 2 * size.width ? 2 : 1);
  controls.querySelector(`[name=zoom][value="${state.zoom}"]`).checked = true;
})();
