//! Brings packs into every repository while the workers go on.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, Sender, bounded};
use lifeboat_environment::Environment;
use lifeboat_objects::Blocking;
use lifeboat_repository::ids::{Digest, StreamId};
use lifeboat_repository::layout;
use lifeboat_repository::manifest::Extent;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::pack::FinishedPack;
use lifeboat_repository::regions::Regions;
use lifeboat_repository::tree::ObjectEntry;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::frames::{BootFrames, PackSink};

/// Finished packs that may wait; with one being stored and one a worker being filled this bounds
/// the memory of a backup.
const WAITING_PACKS: usize = 1;

/// A pack on its way.
struct Parcel {
    number: u32,
    pack: FinishedPack,
    boot: Option<BootFrames>,
}

/// What was stored.
#[derive(Debug, Default)]
pub struct Stored {
    /// Name of each pack by its number in this backup.
    pub packs: BTreeMap<u32, Digest>,
    /// Packs as the object table wants them.
    pub objects: Vec<ObjectEntry>,
    /// The boot set.
    pub boot_set: Vec<Extent>,
}

/// The workers' end.
pub struct Upload {
    sender: Sender<Parcel>,
}

impl PackSink for Upload {
    fn take(&self, number: u32, pack: FinishedPack, boot: Option<BootFrames>) -> Outcome<()> {
        // The storing end hangs up only after a failure of its own, which `storing` reports.
        self.sender
            .send(Parcel { number, pack, boot })
            .map_err(|_| Failure::new(Code::BackupAborted, "the packs could not be stored"))
    }
}

/// Runs `produce` with a sink whose packs are stored in all regions by this thread's companion.
pub fn storing<T>(
    environment: &Environment,
    blocking: &Blocking,
    regions: &mut Regions,
    stream: StreamId,
    produce: impl FnOnce(&Upload) -> Outcome<T> + Send,
) -> Outcome<(T, Stored)>
where
    T: Send,
{
    let (sender, receiver) = bounded(WAITING_PACKS);
    let upload = Upload { sender };
    std::thread::scope(|scope| {
        let producer = scope.spawn(move || {
            let produced = produce(&upload);
            // Dropping the sender ends the loop below.
            drop(upload);
            produced
        });
        let stored = store_all(environment, blocking, regions, stream, &receiver);
        // Workers that wait to hand over a pack are told.
        drop(receiver);
        let produced = producer
            .join()
            .map_err(|_| Failure::new(Code::Internal, "a worker of the backup panicked"))?;
        // Why storing failed says more than that the workers noticed.
        let stored = stored?;
        Ok((produced?, stored))
    })
}

fn store_all(
    environment: &Environment,
    blocking: &Blocking,
    regions: &mut Regions,
    stream: StreamId,
    receiver: &Receiver<Parcel>,
) -> Outcome<Stored> {
    let mut stored = Stored::default();
    for parcel in receiver {
        let Parcel { number, pack, boot } = parcel;
        let key = layout::content(stream, ObjectType::Pack, &pack.digest)?;
        environment.failpoints().hit("backup.pack")?;
        blocking.run(regions.create(&key, &pack.bytes))?;
        environment.failpoints().hit("backup.pack_stored")?;
        stored.packs.insert(number, pack.digest);
        stored.objects.push(ObjectEntry {
            digest: pack.digest,
            kind: ObjectType::Pack,
            size: pack.bytes.len() as u64,
            live: pack.frame_bytes,
        });
        if let Some(boot) = boot {
            let (first_frame, frames) = (boot.first, boot.count);
            stored.boot_set.push(Extent { pack: pack.digest, first_frame, frames });
        }
    }
    Ok(stored)
}
