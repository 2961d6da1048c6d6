//! Appending to a plain file and syncing it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::sync::{mpsc, oneshot};

use crate::Failure;
use crate::load::Work;

/// A loop that appends what is queued, syncs once, and answers.
#[derive(Clone)]
pub(crate) struct FileLoop {
    queue: mpsc::UnboundedSender<(usize, oneshot::Sender<()>)>,
}

impl FileLoop {
    pub(crate) fn start(path: impl AsRef<Path>, templates: Vec<Vec<u8>>) -> Result<Self, Failure> {
        let (queue, queued) = mpsc::unbounded_channel();
        let file = File::create(path)?;
        std::thread::Builder::new().name("floor".into()).spawn(move || commit(file, &templates, queued))?;
        Ok(Self { queue })
    }
}

fn commit(mut file: File, templates: &[Vec<u8>], mut queued: mpsc::UnboundedReceiver<(usize, oneshot::Sender<()>)>) {
    let (mut buffer, mut answers) = (Vec::new(), Vec::new());
    while let Some((place, answer)) = queued.blocking_recv() {
        let mut next = Some((place, answer));
        while let Some((place, answer)) = next {
            buffer.extend_from_slice(&templates[place % templates.len()]);
            answers.push(answer);
            next = queued.try_recv().ok();
        }
        file.write_all(&buffer).and_then(|()| file.sync_data()).expect("the disk takes the floor's records");
        buffer.clear();
        for answer in answers.drain(..) {
            let _ = answer.send(()); // the sender is gone at the end of the window
        }
    }
}

impl Work for FileLoop {
    async fn once(&self, place: usize) {
        let (answer, answered) = oneshot::channel();
        self.queue.send((place, answer)).expect("the loop runs while senders are there");
        answered.await.expect("the loop answers");
    }
}

/// One append and its sync, on the caller's thread.
#[derive(Clone)]
pub(crate) struct FileOnce {
    file: Arc<Mutex<File>>,
    templates: Arc<Vec<Vec<u8>>>,
}

impl FileOnce {
    pub(crate) fn new(path: impl AsRef<Path>, templates: Vec<Vec<u8>>) -> Result<Self, Failure> {
        Ok(Self { file: Arc::new(Mutex::new(File::create(path)?)), templates: Arc::new(templates) })
    }
}

impl Work for FileOnce {
    async fn once(&self, place: usize) {
        let mut file = self.file.lock().expect("there is one sender");
        let written = file.write_all(&self.templates[place % self.templates.len()]);
        written.and_then(|()| file.sync_data()).expect("the disk takes the floor's records");
    }
}
