"""The table `[storage]` of run.toml: what a run pays people to store (protocol §14, decision 0029). Without it nobody is paid for that."""

from pydantic import Field, field_validator, model_validator

from swarm.config.fields import MAX_COUNT, Part, Refusal

MAX_OBJECTS = 8  # an invite carries them all and has to fit a chat
SEGMENT_BYTES = 1024
MAX_KIB = 2**32 - 1  # of all objects together: a receipt's units are a uint32


class StoredObject(Part):
    """Content that the run lists. Who stores it is asked for 1 KiB segments of its files, one after the other."""

    cid: str = Field(pattern=r"^b[a-z2-7]{58}$", description="CIDv1 of a file or a folder")
    bytes: int = Field(ge=1, le=MAX_COUNT, description="of its files together")
    segments_root: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the tree over its segments")

    @property
    def num_segments(self) -> int:
        return -(-self.bytes // SEGMENT_BYTES)


class StorageConfig(Part):
    """What is paid for storing, for how many copies, and how it is asked for."""

    price_amount: str = Field(
        "0", pattern=r"^[0-9]{1,38}$", description="reward in the token's base unit for a KiB and a paid epoch"
    )
    replicas: int = Field(3, ge=1, le=64, description="storers of one object that are paid, at most")
    every_epochs: int = Field(1, ge=1, le=1024, description="every so many certified epochs storers are challenged")
    segments: int = Field(4, ge=1, le=16, description="segments that a challenge asks of a storer")
    objects: tuple[StoredObject, ...] = Field(strict=False, min_length=1, max_length=MAX_OBJECTS)

    @field_validator("objects")
    @classmethod
    def _differ(cls, objects: tuple[StoredObject, ...]) -> tuple[StoredObject, ...]:
        for number, each in enumerate(objects):
            for earlier in objects[:number]:
                if each.cid == earlier.cid or each.segments_root == earlier.segments_root:
                    raise Refusal(
                        f"storage.objects.{number}", each.cid, "is listed twice, and would be paid twice; remove one"
                    )
        return objects

    @model_validator(mode="after")
    def _can_be_counted(self) -> "StorageConfig":
        for number, each in enumerate(self.objects):  # or some that store it got nothing, and yet took from others
            if each.num_segments < self.replicas:
                raise Refusal(
                    f"storage.objects.{number}.bytes",
                    each.bytes,
                    f"must be {(self.replicas - 1) * SEGMENT_BYTES + 1} at least to be paid to storage.replicas = {self.replicas} "
                    "storers; take fewer replicas, or leave it out",
                )
        if self.num_segments > MAX_KIB:
            largest = max(range(len(self.objects)), key=lambda number: self.objects[number].bytes)
            raise Refusal(
                f"storage.objects.{largest}.bytes",
                self.objects[largest].bytes,
                f"is too much: all objects may have {MAX_KIB} KiB together; list fewer objects",
            )
        return self

    @property
    def num_segments(self) -> int:
        """Of all objects: the KiB that an epoch pays at most, once for however many copies there are."""
        return sum(each.num_segments for each in self.objects)

    @property
    def price(self) -> int:
        return int(self.price_amount)


__all__ = ["MAX_OBJECTS", "StorageConfig", "StoredObject"]
